"""Everything that speaks to Milvus."""
