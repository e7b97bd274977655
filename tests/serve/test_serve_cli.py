"""`lookalike serve` as a process: it starts, prints its address, refuses bad settings, and ends on a signal."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

LOOKALIKE = [sys.executable, "-m", "lookalike"]
KEY = "reader-0123456789"


@pytest.fixture(scope="module")
def shop(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    shutil.copytree(catalogue, folder, dirs_exist_ok=True)
    command = [*LOOKALIKE, "ingest", "products.csv", "--encoder", "pixels"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def running(folder: Path, *options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a service; yields its process and the address that it printed."""
    process = subprocess.Popen(
        [*LOOKALIKE, "serve", "--port", "0", *options],
        cwd=folder,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        match = re.search(r"products \(192 images\) at (http://[^,]+),", process.stderr.readline())
        assert match, process.stderr.read()
        yield process, match[1]
    finally:
        process.kill()
        process.wait()


def run_refused(folder: Path, *options: str, **environment: str) -> str:
    done = subprocess.run(
        [*LOOKALIKE, "serve", *options],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_it_serves_logs_in_json_and_ends_on_sigterm(shop: Path) -> None:
    with running(shop) as (process, address):
        photo = (shop / "queries" / "red-plain-mug.jpg").read_bytes()
        response = httpx2.post(f"{address}/search", files={"image": photo}, trust_env=False)
        assert len(response.json()["hits"]) == 10
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(30) == 0
    logged = next(line for line in lines if line.get("route") == "/search")
    assert (logged["status"], logged["request_id"]) == (200, response.headers["x-request-id"])
    # The collection is no longer locked.
    with running(shop) as (_, address):
        assert httpx2.get(f"{address}/ready", trust_env=False).status_code == 200


def test_a_public_address_needs_keys(shop: Path) -> None:
    message = run_refused(shop, "--host", "0.0.0.0")
    assert "--host 0.0.0.0 is open to others: set LOOKALIKE_API_KEYS" in message
    assert "a key of 5 characters; use at least 16" in run_refused(shop, LOOKALIKE_API_KEYS="short")
    with running(shop, LOOKALIKE_API_KEYS=KEY) as (_, address):
        assert httpx2.get(f"{address}/products/red-plain-mug", trust_env=False).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        assert httpx2.get(f"{address}/products/red-plain-mug", headers=headers, trust_env=False).status_code == 200


def test_a_taken_port_and_a_missing_collection_are_refused(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port} cannot be listened at: Address already in use" in run_refused(shop, "--port", port)
    assert "no collection 'other'" in run_refused(shop, "--collection", "other", "--port", "0")
