"""The processes of the stack: Milvus, the worker that follows a catalogue, the API."""

import http.client
import json
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial

from lookalike.stack.data_dir import DataDir, MilvusKind
from lookalike.stack.milvus import find_free_port
from lookalike.stack.process import ProcessSpec

_INVALID_USAGE = 2
_MILVUS_READY_SECONDS = 180.0
_WORKER_STOP_SECONDS = 15.0
"""A worker stops between two batches, but not while it waits for a Milvus that is down. The next run completes it."""
_SERVER_STOP_SECONDS = 8.0
"""A 2.3 server with a collection often hangs on SIGTERM (Milvus issue 30310); its log is written by then."""
# -P keeps the current folder off the import path: it may hold a `search.py` of the user's.
_PYTHON = (sys.executable, "-P", "-m")
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}


def describe_milvus(kind: MilvusKind, data_dir: DataDir, port: int) -> ProcessSpec:
    """A Milvus server, or a Milvus Lite server."""
    if kind == "server":
        health_port = find_free_port()
        return ProcessSpec(
            "milvus",
            [*_PYTHON, "lookalike.stack.milvus", str(data_dir.server_data), str(port), str(health_port)],
            partial(answers_ok, health_port, "/healthz"),
            ready_timeout=_MILVUS_READY_SECONDS,
            format_line=_hide_line,
            stop_timeout=_SERVER_STOP_SECONDS,
            ready_message=f"answers at http://127.0.0.1:{port}; its ports are open to the network, without a password",
        )
    return ProcessSpec(
        "milvus",
        [*_PYTHON, "lookalike.schema.milvus.lite.server", str(data_dir.lite_data), str(port)],
        partial(_accepts_connections, port),
        ready_timeout=_MILVUS_READY_SECONDS,
        format_line=_hide_line,
        stop_signal=signal.SIGINT,
        environment=_UNBUFFERED,
        ready_message=f"Lite answers at http://127.0.0.1:{port}",
    )


def describe_worker(source: str, every: int, store: Sequence[str], options: Sequence[str]) -> ProcessSpec:
    """`lookalike ingest SOURCE --watch EVERY`; `store` are the options that name the collection."""
    command = ["lookalike", "ingest", source, "--watch", str(every), "--no-progress", *store, *options]
    return ProcessSpec(
        "worker",
        [*_PYTHON, *command],
        stop_timeout=_WORKER_STOP_SECONDS,
        fatal_status=_INVALID_USAGE,
        environment=_UNBUFFERED,
    )


def describe_api(port: int, data_dir: DataDir, store: Sequence[str]) -> ProcessSpec:
    """`lookalike serve --wait`, which waits until the collection exists."""
    command = ["lookalike", "serve", "--wait", "--port", str(port), "--uploads", str(data_dir.uploads), *store]
    return ProcessSpec(
        "api",
        [*_PYTHON, *command],
        partial(answers_ok, port, "/health"),
        format_line=_hide_requests,
        fatal_status=_INVALID_USAGE,
        environment=_UNBUFFERED,
    )


def answers_ok(port: int, path: str) -> bool:
    """Check whether GET `path` on this machine returns 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def _hide_line(_line: str) -> None:
    """Hide every line: Milvus logs too much. If it fails, the error message shows the end of its log."""


def _hide_requests(line: str) -> str | None:
    """Keep plain text, and the warnings and errors of the service's JSON log; hide the rest."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or entry.get("level") not in ("warning", "error", "critical"):
        return None
    return f"{entry.get('event')}: {entry.get('reason') or entry.get('exception') or ''}".rstrip(": ")
