"""Commands that maintain a collection: delete, reindex, export, import, versions and rollback."""
