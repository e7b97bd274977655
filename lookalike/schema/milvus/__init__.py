"""Everything that talks to Milvus: connection and retries, collections and their versions, reading and writing rows."""
