"""Where products and their images come from."""
