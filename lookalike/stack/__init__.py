"""The whole system on one machine: Milvus, worker and API as processes, and a doctor that checks the installation."""
