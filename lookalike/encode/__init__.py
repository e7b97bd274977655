"""From an image or words to unit vectors."""
