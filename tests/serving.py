"""The real application on a real port, in a thread."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from lookalike.encode.encoder import Encoder
from lookalike.encode.engine import Engine
from lookalike.schema.milvus.store import Store
from lookalike.serve.app import create_app
from lookalike.serve.server import SERVICE_RETRY
from lookalike.serve.service import Service
from lookalike.serve.settings import Keys, Settings


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """Serve until the end of the block; gives the address."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), log_config=None, access_log=False, timeout_graceful_shutdown=30)
    )
    opened = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the service does not end"


def service_for(
    store: Store, encoder: Encoder, uploads: Path, *, keys: str = "", lanes: int = 1, **settings: Any
) -> Service:
    """A service for the collection of a store, opened anew."""
    return Service.start(
        Settings(keys=Keys.parse(keys), uploads=uploads, **settings),
        lambda: Store.open(store.uri, collection=store.name, retry=SERVICE_RETRY),
        lambda name: Engine(encoder, 16, lanes),
    )


def client(address: str, **options: Any) -> httpx2.Client:
    """A client for an address, patient enough for a busy machine."""
    return httpx2.Client(base_url=address, timeout=60, trust_env=False, **options)


def until(happened: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something to happen."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)
