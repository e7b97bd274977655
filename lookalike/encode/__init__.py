"""From an image or a text to a unit vector."""
