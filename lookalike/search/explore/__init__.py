"""What a collection holds, read without a query: sample products, facets, counts, duplicates."""
