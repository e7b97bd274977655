"""Clients of the service, for blocking code and for asyncio. Importing them loads no library of the service."""

from lookalike.serve.client.client import AsyncClient, Client, ServiceUnreachable
from lookalike.serve.client.requests import ServiceError

__all__ = ["AsyncClient", "Client", "ServiceError", "ServiceUnreachable"]
