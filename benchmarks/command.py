"""Makes catalogues of any size, and runs `lookalike ingest` on them in a separate process."""

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
    """The duration of a command in seconds, its peak resident memory in megabytes, and the summary it printed."""

    seconds: float
    peak_mb: float
    summary: dict[str, Any]


def generate_images(folder: Path) -> Iterator[bytes]:
    """Yield synthetic JPEGs forever; appended bytes make each file different."""
    from lookalike.ingest.sample import draw_catalogue

    draw_catalogue(folder)
    contents = [path.read_bytes() for path in sorted((folder / "photos").rglob("*.jpg"))]
    n = 0
    while True:
        yield contents[n % len(contents)] + str(n).encode()
        n += 1


def write_image(folder: Path, n: int, content: bytes) -> dict[str, Any]:
    """Write an image file; return its row for a manifest."""
    path = folder / "images" / f"{n // 1_000}" / f"{n}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18 + n))
    return {"product_id": f"p{n // 3}", "image": str(path), "price": n % 90, "title": f"Product {n // 3}"}


def write_manifest(manifest: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a manifest of JSON lines; return its path."""
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def run_ingest(manifest: Path, *options: str) -> Run:
    """Run `lookalike ingest` in a separate process."""
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
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        peak_mb = 0.0
        while process.poll() is None:
            peak_mb = max(peak_mb, read_peak_memory(process.pid))
            time.sleep(0.05)
        assert process.stdout
        output = process.stdout.read()
    assert process.returncode == 0, output
    return Run(time.perf_counter() - started, peak_mb, json.loads(output))


def read_peak_memory(process: int | str = "self") -> float:
    """The peak resident memory of a process so far, in megabytes; 0 where there is no /proc.

    Not `ru_maxrss`: for a child process that starts at the parent's value.
    """
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:
        return 0.0
    return int(match[1]) / 1024 if match else 0.0
