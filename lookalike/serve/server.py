"""Starts the server and runs it until SIGTERM or Ctrl-C."""

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
from lookalike.schema.milvus.create import describe_missing_collection
from lookalike.schema.milvus.lite.holder import record_holder
from lookalike.schema.milvus.retry import RetryPolicy
from lookalike.schema.milvus.store import Store
from lookalike.schema.settings import CollectionAddress, is_lite
from lookalike.serve.app import create_app
from lookalike.serve.http_protocol import HttpProtocol
from lookalike.serve.logs import log_to_stderr
from lookalike.serve.service import Service
from lookalike.serve.settings import Settings

SERVICE_RETRY = RetryPolicy(call_timeout=10.0, give_up_after=3.0)
"""Answer 503 within seconds rather than let clients wait for minutes."""

_SHUTDOWN_SECONDS = 30
_POLL_SECONDS = 1.0
_BACKLOG = 2_048


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Which collection to serve, by which encoder, and on which port.

    `encoder` is another name or directory of the collection's encoder; None takes the stored name. `wait` waits until
    the collection exists.
    """

    address: CollectionAddress
    encoder: str | None
    engine: EngineConfig
    port: int
    wait: bool

    def open_store(self) -> Store:
        """Open the collection. Raises BadSettings and StoreUnavailable."""
        at = self.address
        return Store.open(at.uri, token=at.token, collection=at.collection, retry=SERVICE_RETRY)


def run(settings: Settings, options: ServerOptions) -> None:
    """Serve until a signal arrives, then finish the requests that have begun."""
    log_to_stderr()
    if options.wait:
        _wait_for_collection(options.address)
    # Before the encoder is loaded: a port that is taken is reported at once.
    listener = _listen(settings.host, options.port)
    service = Service.start(
        settings, options.open_store, lambda name: load_engine(options.encoder or name, options.engine)
    )
    service.warm_up()
    url = f"http://{_format_host(settings.host)}:{listener.getsockname()[1]}"
    if is_lite(options.address.uri):
        record_holder(options.address.uri, service=url)
    _announce(service, options.address.collection, url)
    server = make_server(service)
    # After a graceful shutdown uvicorn raises the signal again. Ignoring it then makes the exit status 0.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda _signum, _frame: None)
    server.run(sockets=[listener])


def make_server(service: Service) -> uvicorn.Server:
    """Make a server for a service; `run(sockets=[…])` starts it."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            http=HttpProtocol,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )


def _announce(service: Service, collection: str, address: str) -> None:
    images = service.live.version.store.count()
    click.echo(f"{collection} ({images} images) at {address}, documented at {address}/docs", err=True)
    structlog.get_logger("lookalike").info("listening", address=address)


def _wait_for_collection(address: CollectionAddress) -> None:
    """Return when the collection exists; the first ingest creates it. Raises StoreUnreachable."""
    was_announced = False
    while (store := Store.find(address.uri, token=address.token, collection=address.collection)) is None:
        if not was_announced:
            click.echo(f"Waiting: {describe_missing_collection(address.collection, address.uri, [])}", err=True)
            was_announced = True
        time.sleep(_POLL_SECONDS)
    with store:
        # A server that has just started needs a while to load the collection.
        store.count()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise BadSettings(f"--host {host} --port {port} cannot be listened at: {error.strerror}") from error
    # Without it, Nagle's algorithm holds the end of a response back for 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _format_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
