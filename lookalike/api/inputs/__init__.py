"""Check and convert the arguments of the API."""
