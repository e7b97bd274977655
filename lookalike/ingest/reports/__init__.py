"""What a run reports: counts, a JSONL file, a progress bar."""
