"""The HTTP API: routes, schemas and problems."""
