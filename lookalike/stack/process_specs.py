"""What the processes of the stack are: Milvus, the worker that follows a catalogue, the API."""

import http.client
import json
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial

from lookalike.stack.data_dir import SERVER, DataDir
from lookalike.stack.milvus import free_port
from lookalike.stack.process import ProcessSpec

_ASKED_WRONGLY = 2
_MILVUS_SECONDS = 180.0
_WORKER_END_SECONDS = 15.0
"""It ends between two batches, but not while it waits for a Milvus that is away; the next run does the rest."""
_SERVER_END_SECONDS = 8.0
"""A 2.3 server with a collection often hangs when it should end (its issue 30310); its log is written all the same."""
# Not from the folder that somebody happens to be in: it may have a `search` of its own.
_PYTHON = (sys.executable, "-P", "-m")
_AT_ONCE = {"PYTHONUNBUFFERED": "1"}


def milvus(kind: str, folder: DataDir, port: int) -> ProcessSpec:
    """A Milvus server, or Milvus Lite's where there is none."""
    if kind == SERVER:
        health = free_port()
        return ProcessSpec(
            "milvus",
            [*_PYTHON, "lookalike.stack.milvus", str(folder.server_data), str(port), str(health)],
            partial(answers, health, "/healthz"),
            within=_MILVUS_SECONDS,
            shown=_nothing,
            end_within=_SERVER_END_SECONDS,
            greeting=f"answers at http://127.0.0.1:{port}; its ports are open to this machine's network, no password",
        )
    return ProcessSpec(
        "milvus",
        [*_PYTHON, "lookalike.schema.milvus.lite.server", str(folder.lite_data), str(port)],
        partial(_listens, port),
        within=_MILVUS_SECONDS,
        shown=_nothing,
        end=signal.SIGINT,
        environment=_AT_ONCE,
        greeting=f"Lite answers at http://127.0.0.1:{port}",
    )


def worker(source: str, every: int, place: Sequence[str], options: Sequence[str]) -> ProcessSpec:
    """`lookalike ingest SOURCE --watch`."""
    command = ["lookalike", "ingest", source, "--watch", str(every), "--no-progress", *place, *options]
    return ProcessSpec(
        "worker",
        [*_PYTHON, *command],
        end_within=_WORKER_END_SECONDS,
        hopeless=_ASKED_WRONGLY,
        environment=_AT_ONCE,
    )


def api(port: int, folder: DataDir, place: Sequence[str]) -> ProcessSpec:
    """`lookalike serve`, as soon as there is a collection."""
    command = ["lookalike", "serve", "--wait", "--port", str(port), "--uploads", str(folder.uploads), *place]
    return ProcessSpec(
        "api",
        [*_PYTHON, *command],
        partial(answers, port, "/health"),
        shown=_without_requests,
        hopeless=_ASKED_WRONGLY,
        environment=_AT_ONCE,
    )


def answers(port: int, path: str) -> bool:
    """Tell whether a GET is answered well, here and now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def _nothing(_line: str) -> None:
    """Milvus says too much; when it fails, the end of its log is shown."""


def _without_requests(line: str) -> str | None:
    """Warnings and errors out of the service's JSON, and what it says to people."""
    try:
        told = json.loads(line)
    except ValueError:
        return line
    if not isinstance(told, dict) or told.get("level") not in ("warning", "error", "critical"):
        return None
    return f"{told.get('event')}: {told.get('reason') or told.get('exception') or ''}".rstrip(": ")
