"""Commands that maintain a collection: delete, sources, reindex, export, import, versions and rollback."""
