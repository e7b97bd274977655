"""What ingest and search agree on: errors, settings, products, filters, the collection and its store."""
