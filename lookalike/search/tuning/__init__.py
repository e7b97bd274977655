"""`lookalike tune`: measure the recall of a server's index, and choose how widely to search it."""
