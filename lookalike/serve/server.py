"""From settings to a server that runs until it is told to end."""

import signal
import socket
import time
from dataclasses import dataclass

import click
import structlog
import uvicorn

from lookalike.encode.load_engine import load_engine
from lookalike.encode.options import EngineConfig
from lookalike.schema.errors import BadSettings
from lookalike.schema.milvus.connection import RetryPolicy
from lookalike.schema.milvus.create import describe_missing_collection
from lookalike.schema.milvus.store import Store
from lookalike.schema.settings import CollectionAddress
from lookalike.serve.app import create_app
from lookalike.serve.logs import log_to_stderr
from lookalike.serve.service import Service
from lookalike.serve.settings import Settings

SERVICE_RETRY = RetryPolicy(call=10.0, retry=3.0)
"""A guest waits: better a 503 soon than an answer in two minutes."""

_END_SECONDS = 30
_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Which collection is served, by which encoder, and on which port."""

    address: CollectionAddress
    encoder: str | None
    """Another name or directory of the collection's encoder."""

    engine: EngineConfig
    port: int
    wait: bool
    """Wait until the collection exists."""


def run(settings: Settings, options: ServerOptions) -> None:
    """Open, listen, answer; ends after what was begun when the process is asked to."""
    log_to_stderr()
    at = options.address
    if options.wait:
        _wait_for_collection(at.uri, at.token, at.collection)
    listening = _listen(settings.host, options.port)

    def open_store() -> Store:
        return Store.open(at.uri, token=at.token, collection=at.collection, patience=SERVICE_RETRY)

    service = Service.start(settings, open_store, lambda name: load_engine(options.encoder or name, options.engine))
    service.warm_up()
    address = f"http://{_shown(settings.host)}:{listening.getsockname()[1]}"
    store = service.live.version.store
    click.echo(f"{at.collection} ({store.count()} images) at {address}, documented at {address}/docs", err=True)
    structlog.get_logger("lookalike").info("listening", address=address)
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), log_config=None, access_log=False, timeout_graceful_shutdown=_END_SECONDS)
    )
    # To be told to end is no failure: uvicorn sends itself the signal again when all is done, and there it stops.
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, lambda _number, _frame: None)
    server.run(sockets=[listening])


def _wait_for_collection(uri: str, token: str, collection: str) -> None:
    """Return when the collection is there; the first ingest makes it. Raises StoreAway without Milvus."""
    told = False
    while (store := Store.find(uri, token=token, collection=collection)) is None:
        if not told:
            click.echo(f"Waiting: {describe_missing_collection(collection, uri, [])}", err=True)
        told = True
        time.sleep(_LOOK_EVERY)
    with store:
        # A server that has just begun takes a while to load it.
        store.count()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise BadSettings(f"--host {host} --port {port} cannot be listened at: {error.strerror}") from error
    # Answers go out at once; otherwise the kernel keeps the end of one back, forty milliseconds, for what may follow.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
