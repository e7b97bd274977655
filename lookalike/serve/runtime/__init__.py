"""What the routes share while the service runs: threads, batches, caches, deadlines and metrics."""
