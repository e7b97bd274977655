"""The pipeline: source → diff → load → encode → upsert."""
