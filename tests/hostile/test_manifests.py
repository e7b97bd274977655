"""A manifest of a million hostile rows."""
