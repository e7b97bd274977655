"""What only Milvus Lite needs: reading its segments from memory, and its server process."""
