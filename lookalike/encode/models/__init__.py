"""The encoder families: one file each. lookalike/encode/registry.py says how to add one."""
