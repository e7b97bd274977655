"""What an update costs against a full ingest: no change, new pictures, new prices, removed products.

    python benchmarks/update.py [--images 20000] [--uri URI] [--encoder NAME]

Each step is a `lookalike ingest` of its own, timed as a whole: starting Python, opening Milvus, planning, writing.
The pictures are drawn ones, each made another by bytes after its end.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(ROOT)

Rows = list[dict[str, Any]]


@click.command()
@click.option("--images", default=20_000, show_default=True)
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server; by default Milvus Lite in a folder of its own.")
def main(images: int, encoder: str, uri: str | None) -> None:
    """Time each step, and print it beside the full ingest."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder, hundredth = Path(scratch), images // 100
        pictures = _pictures(folder)
        rows = [_row(folder, n, next(pictures)) for n in range(images)]
        print(f"{images} pictures, {encoder}, {uri or 'Milvus Lite'}")

        def step(name: str) -> None:
            _write(folder / "catalogue.jsonl", rows)
            took, peak, told = _ingest(folder, encoder, uri)
            full.append(took)
            counts = ", ".join(f"{told[key]} {key}" for key in ("new", "metadata", "unchanged", "removed", "embedded"))
            print(f"  {name:18} {took:7.2f} s  {took / full[0]:7.2%} of full  {peak:5.0f} MB   {counts}", flush=True)

        full: list[float] = []
        step("full")
        # What was written less than two seconds ago is looked at twice.
        time.sleep(2)
        step("no change")
        rows += [_row(folder, images + n, next(pictures)) for n in range(hundredth)]
        step("1 % new pictures")
        for row in islice(rows, 0, None, 100):
            row["price"] += 1
        step("1 % new prices")
        del rows[:hundredth]
        step("1 % removed")


def _pictures(folder: Path) -> Iterator[bytes]:
    from ingest.sample import draw_catalogue

    draw_catalogue(folder)
    drawn = [path.read_bytes() for path in sorted((folder / "photos").rglob("*.jpg"))]
    n = 0
    while True:
        yield drawn[n % len(drawn)] + str(n).encode()
        n += 1


def _row(folder: Path, n: int, content: bytes) -> dict[str, Any]:
    path = folder / "pictures" / f"{n // 1_000}" / f"{n}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18 + n))
    return {"product_id": f"p{n // 3}", "image": str(path), "price": n % 90, "title": f"Product {n // 3}"}


def _write(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _ingest(folder: Path, encoder: str, uri: str | None) -> tuple[float, float, dict[str, Any]]:
    """Run the command; return seconds, peak megabytes and its summary."""
    command = [sys.executable, "-m", "lookalike", "ingest", str(folder / "catalogue.jsonl"), "--prune", "--no-progress"]
    command += ["--encoder", encoder, "--uri", uri or str(folder / "bench.db"), "--collection", "bench_update"]
    started = time.perf_counter()
    running = subprocess.Popen([*command, "--format", "json"], cwd=ROOT, stdout=subprocess.PIPE)
    assert running.stdout
    told = running.stdout.read()
    _, status, usage = os.wait4(running.pid, 0)
    took = time.perf_counter() - started
    assert status == 0, told
    return took, usage.ru_maxrss / 1024, json.loads(told)


if __name__ == "__main__":
    main()
