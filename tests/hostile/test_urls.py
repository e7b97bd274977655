"""URLs of images that lead to where they must not."""
