"""Images by http and https, for ingest and for the service: whole, within limits, and only from where they may be."""
