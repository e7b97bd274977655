"""The page at /: HTML, its query string and its static files."""
