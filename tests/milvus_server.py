"""A real Milvus server for the tests: that of the wheel milvus==2.3.5, started as `lookalike up` starts it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from lookalike.stack.milvus import find_free_port

SHORT_INTERVALS = {
    "QUERYCOORD_CHECKCHANNELINTERVAL": "50",
    "QUERYCOORD_CHECKSEGMENTINTERVAL": "50",
    "QUERYCOORD_DISTPULLINTERVAL": "50",
    "PROXY_TIMETICKINTERVAL": "50",
}
"""Milliseconds. By default the server's components check once or twice a second whether there is a collection to load,
which is too slow for tests that load many small collections."""

_START_SECONDS = 60
_ATTEMPTS = 3
"""A free port may be taken by another server before this one binds it; then this one never gets ready."""


@contextmanager
def milvus_server(folder: Path) -> Iterator[str]:
    """Run a server with its data in `folder`; yield its address."""
    for attempt in range(_ATTEMPTS):
        process, address = _start(folder / str(attempt))
        if process is not None:
            break
    else:
        raise TimeoutError(
            f"the Milvus server was not ready within {_START_SECONDS} s, {_ATTEMPTS} times; see {folder}"
        )
    try:
        yield address
    finally:
        _stop(process)


def _start(folder: Path) -> "tuple[subprocess.Popen[bytes] | None, str]":
    """Start a server; return its process and address once it is ready, or no process if it does not get ready."""
    folder.mkdir(parents=True)
    port, health_port = find_free_port(), find_free_port()
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", "lookalike.stack.milvus", str(folder / "data"), str(port), str(health_port)]
        root = str(Path(__file__).parents[1])
        process = subprocess.Popen(
            command, env={**os.environ, **SHORT_INTERVALS, "PYTHONPATH": root}, cwd=folder, stdout=log, stderr=log
        )
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if _is_healthy(health_port):
            return process, f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    _stop(process)
    return None, ""


def _is_healthy(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=5).text == "OK"
    except httpx2.TransportError:
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
