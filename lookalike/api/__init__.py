"""The public API in Python: a collection, its results, and encoders without a collection."""
