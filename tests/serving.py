"""The real application on a real port, in a thread."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from lookalike.encode.encoder import Encoder
from lookalike.encode.engine import Engine
from lookalike.schema.milvus.store import Store
from lookalike.serve.server import SERVICE_RETRY, make_server
from lookalike.serve.service import Service
from lookalike.serve.settings import Keys, Settings


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """Serve until the end of the block; yields the address."""
    server = make_server(service)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the service did not end within 60 s"


def service_for(
    store: Store, encoder: Encoder, uploads: Path, *, keys: str = "", lanes: int = 1, **settings: Any
) -> Service:
    """Start a service for the collection of a store, which it opens again."""
    return Service.start(
        Settings(keys=Keys.parse(keys), uploads=uploads, **settings),
        lambda: Store.open(store.uri, collection=store.name, retry=SERVICE_RETRY),
        lambda name: Engine(encoder, 16, lanes),
    )


def client(address: str, **options: Any) -> httpx2.Client:
    """Make a client for an address, with a timeout that suits a busy machine."""
    return httpx2.Client(base_url=address, timeout=60, trust_env=False, **options)


def draw_noise(size: tuple[int, int], image_format: str = "PNG", seed: int = 0) -> bytes:
    """Draw an image of noise and return its file. The same seed gives the same image."""
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, image_format)
    return file.getvalue()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not true after {seconds:g} s"
        time.sleep(0.02)
