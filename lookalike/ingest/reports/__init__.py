"""What a run reports: the JSONL file, the terminal and the heartbeat file."""
