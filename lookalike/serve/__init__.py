"""The service: search over HTTP, and a page."""
