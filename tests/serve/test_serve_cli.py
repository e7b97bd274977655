"""`lookalike serve` as a process: it starts, says where, refuses what cannot work, and ends when it is told to."""

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
    """A service that has said where it listens; gives its address."""
    process = subprocess.Popen(
        [*LOOKALIKE, "serve", "--port", "0", *options],
        cwd=folder,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        found = re.search(r"products \(192 images\) at (http://[^,]+),", process.stderr.readline())
        assert found, process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


def refused(folder: Path, *options: str, **environment: str) -> str:
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


def test_it_answers_logs_in_json_and_ends_when_told(shop: Path) -> None:
    with running(shop) as (process, address):
        photo = (shop / "queries" / "red-plain-mug.jpg").read_bytes()
        answer = httpx2.post(f"{address}/search", files={"image": photo}, trust_env=False)
        assert len(answer.json()["hits"]) == 10
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(30) == 0
    asked = next(line for line in lines if line.get("route") == "/search")
    assert (asked["status"], asked["request_id"]) == (200, answer.headers["x-request-id"])
    # Its folder is free for others.
    with running(shop) as (_, address):
        assert httpx2.get(f"{address}/ready", trust_env=False).status_code == 200


def test_others_need_a_key(shop: Path) -> None:
    said = refused(shop, "--host", "0.0.0.0")
    assert "--host 0.0.0.0 is open to others: set LOOKALIKE_API_KEYS" in said
    assert "a key of 5 characters; take at least 16" in refused(shop, LOOKALIKE_API_KEYS="short")
    with running(shop, LOOKALIKE_API_KEYS=KEY) as (_, address):
        assert httpx2.get(f"{address}/products/red-plain-mug", trust_env=False).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        assert httpx2.get(f"{address}/products/red-plain-mug", headers=headers, trust_env=False).status_code == 200


def test_what_cannot_be_served_is_said(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port} cannot be listened at: Address already in use" in refused(shop, "--port", port)
    assert "no collection 'other'" in refused(shop, "--collection", "other", "--port", "0")
