"""A catalogue of any size, and `lookalike ingest` run on it as a user does."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Run:
    """How long a command took as a whole, in seconds; its peak resident memory, in megabytes; its summary."""

    seconds: float
    peak: float
    summary: dict[str, Any]


def draw_images(folder: Path) -> Iterator[bytes]:
    """Drawn JPEGs without end, each made another by bytes after its own end."""
    from lookalike.ingest.sample import draw_catalogue

    draw_catalogue(folder)
    drawn = [path.read_bytes() for path in sorted((folder / "photos").rglob("*.jpg"))]
    n = 0
    while True:
        yield drawn[n % len(drawn)] + str(n).encode()
        n += 1


def row(folder: Path, n: int, content: bytes) -> dict[str, Any]:
    """Write an image, and give its row of a manifest."""
    path = folder / "images" / f"{n // 1_000}" / f"{n}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18 + n))
    return {"product_id": f"p{n // 3}", "image": str(path), "price": n % 90, "title": f"Product {n // 3}"}


def write(manifest: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a manifest of JSON lines."""
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def ingest(manifest: Path, *options: str) -> Run:
    """Run `lookalike ingest` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "lookalike",
        "ingest",
        str(manifest),
        "--no-progress",
        "--format",
        "json",
        *options,
    ]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as running:
        peak = 0.0
        while running.poll() is None:
            peak = max(peak, _peak(running.pid))
            time.sleep(0.05)
        assert running.stdout
        told = running.stdout.read()
    assert running.returncode == 0, told
    return Run(time.perf_counter() - started, peak, json.loads(told))


def _peak(process: int) -> float:
    """The peak so far, from Linux; ru_maxrss of a child begins with that of its parent."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) / 1024 if found else 0
