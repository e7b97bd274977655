"""Filters on metadata: the tree, the two ways to write one, and the Milvus expression it becomes."""
