"""The whole on one machine: Milvus, worker and API as processes, and a doctor that says what is in the way."""
