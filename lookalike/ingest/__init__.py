"""From product photos to rows of a Milvus collection."""
