"""The encoder families: one file each."""
