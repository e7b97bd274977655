"""Fetches images by http and https, for ingest and for the service: whole, within limits, from allowed addresses."""
