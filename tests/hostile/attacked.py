"""A small shop behind the real service, for attacks on it, and raw requests as no client library sends them."""

import io
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import httpx2
from command import process_command, process_environment
from conftest import bring
from make_tiny_clip import draw
from serving import client, listening, service_for

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.store import Store
from lookalike.serve.service import Service

READER, WRITER = "reader-0123456789", "writer-0123456789"
JSON = {"content-type": "application/json"}


class Attacked(NamedTuple):
    """Three products, `red`, `green` and `blue`, behind a service."""

    http: httpx2.Client
    service: Service
    store: Store
    address: str

    def assert_unharmed(self) -> None:
        """The service answers what it answered before the attack, at once."""
        assert self.http.get("/ready", timeout=20).status_code == 200
        hits = self.http.post("/search", json={"product_id": "red", "limit": 2}, timeout=20).json()["hits"]
        assert {hit["product_id"] for hit in hits} == {"green", "blue"}


@contextmanager
def attacked_shop(folder: Path, **settings: Any) -> Iterator[Attacked]:
    """Serve the shop until the end of the block."""
    draw_products(folder / "photos")
    encoder = PixelEncoder()
    with Store.create(str(folder / "shop.db"), encoder.fingerprint) as store:
        bring(FolderSource(folder / "photos", Layout("{product_id}/{image}")).images(), encoder, store)
        service = service_for(store, encoder, folder / "uploads", **settings)
        with listening(service) as address, client(address) as http:
            yield Attacked(http, service, store, address)


@dataclass(frozen=True, slots=True)
class Child:
    """A service as a process of its own, and its log."""

    process: "subprocess.Popen[bytes]"
    address: str
    log: Path

    def memory(self) -> int:
        """Return the resident bytes of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def child_service(folder: Path, *options: str, **environment: str) -> Iterator[Child]:
    """Run `lookalike serve` on a collection of the folder until the end of the block."""
    log = folder / "service.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            process_command("serve", "--port", "0", *options),
            cwd=folder,
            env={**process_environment(), **environment},
            stderr=stderr,
        )
    try:
        yield Child(process, _wait_for_address(process, log), log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    for _ in range(1_200):
        match = re.search(r" at (http://[^,]+),", log.read_text())
        if match:
            return match[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"not ready within two minutes: {log.read_text()}")


def draw_products(folder: Path) -> None:
    """Draw an image of each of three products."""
    for colour in ("red", "green", "blue"):
        (folder / colour).mkdir(parents=True)
        (folder / colour / "1.png").write_bytes(draw_png(colour))


def draw_png(colour: str) -> bytes:
    """Draw a small image and return its file."""
    file = io.BytesIO()
    draw(colour, "circle", Random(1)).save(file, "PNG")
    return file.getvalue()


def connect(address: str, timeout: float = 60) -> socket.socket:
    """Open a connection to a service, to send whatever to it."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def send_raw(address: str, content: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; return the status of the response, 0 if there is none, and all that came."""
    with connect(address) as connection:
        connection.sendall(content)
        response = read_all(connection)
    words = response.split(maxsplit=2)
    return (int(words[1]) if len(words) > 1 else 0), response


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
