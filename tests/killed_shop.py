"""A catalogue and commands that are killed at random moments."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from catalogue import draw
from command import ROOT, lookalike_process, process_command, process_environment

from lookalike.schema.milvus.store import Store

TINY_CLIP = str(ROOT / "tests" / "tiny_clip")
KILLS = int(os.environ.get("LOOKALIKE_KILLS", "2"))
SEED = int(os.environ.get("LOOKALIKE_SEED", "0"))
FIELDS = ("product_id", "image", "source", "image_hash", "metadata_hash", "image_size", "image_mtime", "metadata")

_random = Random(SEED)


class Shop:
    """A catalogue of small images, and the commands that ingest it into one collection or another."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        # Milvus Lite serves one process at a time: each shop has a folder of its own.
        self.uri = uri if uri.startswith("http") else str(folder / "kill.db")
        (folder / "photos").mkdir()

    def draw(self, numbers: range, shade: int) -> None:
        for n in numbers:
            draw(self.folder / "photos" / f"p{n // 3}" / f"{n}.png", n + shade, at=10**18 + shade)

    def command(self, verb: str, *arguments: str, collection: str) -> list[str]:
        return [verb, *arguments, "--uri", self.uri, "--collection", collection, "--no-progress", "--batch-size", "4"]

    def ingest(self, collection: str, *more: str) -> list[str]:
        return self.command("ingest", str(self.folder / "photos"), "--source-name", "s", *more, collection=collection)

    def kill_repeatedly(self, command: list[str], seconds: float) -> int:
        """Start a command KILLS times and kill it at random moments; return how often it had not ended.

        `seconds` is about how long it takes.
        """
        kills = 0
        for _ in range(KILLS):
            running = subprocess.Popen(
                process_command(*command),
                cwd=self.folder,
                env=process_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            time.sleep(_random.uniform(0.3, 1.1) * seconds)
            kills += running.poll() is None
            running.send_signal(signal.SIGKILL)
            running.communicate()
        return kills

    def run(self, command: list[str]) -> dict[str, Any]:
        """Run a command to its end; return its summary."""
        done = lookalike_process(*command, "--format", "json", cwd=self.folder)
        assert done.returncode == 0, done.stderr.decode()
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    def measure(self, command: list[str]) -> float:
        """Return the seconds that a command takes."""
        started = time.perf_counter()
        self.run(command)
        return time.perf_counter() - started

    def has_same_rows(self, one: str, other: str) -> bool:
        """Compare two collections, row by row."""
        (rows, vectors), (rows_, vectors_) = self._rows(one), self._rows(other)
        return rows == rows_ and np.allclose(vectors, vectors_, atol=1e-5)

    def _rows(self, collection: str) -> tuple[list[tuple[Any, ...]], np.ndarray]:
        with Store.open(self.uri, collection=collection) as store:
            stored = sorted(store.rows(fields=[*FIELDS, "embedding"]), key=lambda row: str(row["image_id"]))
            assert len(stored) == len({row["image_id"] for row in stored}) == store.count(), "no duplicates"
        return [tuple(row[f] for f in FIELDS) for row in stored], np.array([row["embedding"] for row in stored])
