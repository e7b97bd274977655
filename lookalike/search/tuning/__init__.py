"""`lookalike tune`: the recall of a server's index, measured."""
