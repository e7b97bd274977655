"""Killed at any moment: what was acknowledged stays, and the next run does the rest.

LOOKALIKE_KILLS says how often each step is killed; a few times by default.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from command import ROOT, lookalike, lookalike_process, process_command, process_environment, wait_for_rows
from test_update import draw

from lookalike.ingest.run_lock import only_run
from lookalike.schema.milvus.store import Store

TINY_CLIP = str(ROOT / "tests" / "tiny_clip")
KILLS = int(os.environ.get("LOOKALIKE_KILLS", "2"))
SEED = int(os.environ.get("LOOKALIKE_SEED", "0"))
FIELDS = ("product_id", "image", "source", "image_hash", "metadata_hash", "image_size", "image_mtime", "metadata")

_chance = Random(SEED)


class Shop:
    """A catalogue of small pictures, and the command that brings it into one collection or another."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        # Lite: one process at a time, so a folder of its own.
        self.uri = uri if uri.startswith("http") else str(folder / "kill.db")
        (folder / "photos").mkdir()

    def draw(self, numbers: range, shade: int) -> None:
        for n in numbers:
            draw(self.folder / "photos" / f"p{n // 3}" / f"{n}.png", n + shade, at=10**18 + shade)

    def command(self, verb: str, *arguments: str, collection: str) -> list[str]:
        return [verb, *arguments, "--uri", self.uri, "--collection", collection, "--no-progress", "--batch-size", "4"]

    def ingest(self, collection: str, *more: str) -> list[str]:
        return self.command("ingest", str(self.folder / "photos"), "--source-name", "s", *more, collection=collection)

    def killed(self, command: list[str], length: float) -> int:
        """Run a command as often as it is to be killed, at random moments; return how often it was."""
        kills = 0
        for _ in range(KILLS):
            running = subprocess.Popen(
                process_command(*command),
                cwd=self.folder,
                env=process_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            time.sleep(_chance.uniform(0.3, 1.1) * length)
            kills += running.poll() is None
            running.send_signal(signal.SIGKILL)
            running.communicate()
        return kills

    def completed(self, command: list[str]) -> dict[str, Any]:
        done = lookalike_process(*command, "--format", "json", cwd=self.folder)
        assert done.returncode == 0, done.stderr.decode()
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def timed(self, command: list[str]) -> float:
        started = time.perf_counter()
        self.completed(command)
        return time.perf_counter() - started

    def same(self, one: str, other: str) -> bool:
        """Compare two collections, row by row."""
        (rows, vectors), (rows_, vectors_) = self._rows(one), self._rows(other)
        return rows == rows_ and np.allclose(vectors, vectors_, atol=1e-5)

    def _rows(self, collection: str) -> tuple[list[tuple[Any, ...]], np.ndarray]:
        with Store.open(self.uri, collection=collection) as store:
            found = sorted(store.rows(fields=[*FIELDS, "embedding"]), key=lambda row: str(row["image_id"]))
            assert len(found) == len({row["image_id"] for row in found}) == store.count(), "no duplicates"
        return [tuple(row[f] for f in FIELDS) for row in found], np.array([row["embedding"] for row in found])


@pytest.fixture
def shop(uri: str, tmp_path: Path) -> Shop:
    return Shop(tmp_path, uri)


def test_killed_once_it_goes_on_where_it_was(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "lite")
    shop.draw(range(240), shade=0)
    command = shop.ingest("killed", "--encoder", "pixels")
    running = subprocess.Popen(process_command(*command), cwd=tmp_path, env=process_environment())
    wait_for_rows(tmp_path / "kill.db")
    running.kill()
    assert running.wait() == -signal.SIGKILL, "it was done before it was killed"

    told = json.loads(lookalike(*command, "--format", "json", cwd=tmp_path).stdout)
    assert told["unchanged"] > 0
    assert told["new"] + told["unchanged"] == 240
    lookalike(*shop.ingest("never_killed", "--encoder", "pixels"), cwd=tmp_path)
    assert shop.same("killed", "never_killed")


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_it_never_was(shop: Shop) -> None:
    shop.draw(range(240), shade=0)
    pixels = ("--encoder", "pixels")
    length = shop.timed(shop.ingest("never_killed", *pixels))

    kills = shop.killed(shop.ingest("killed", *pixels), length)
    told = shop.completed(shop.ingest("killed", *pixels))
    assert told["new"] + told["unchanged"] == 240
    assert shop.same("killed", "never_killed")

    shop.draw(range(60, 80), shade=300)
    shop.draw(range(240, 250), shade=0)
    for n in range(20):
        (shop.folder / "photos" / f"p{n // 3}" / f"{n}.png").unlink()
    kills += shop.killed(shop.ingest("killed", "--prune"), length)
    shop.completed(shop.ingest("killed", "--prune"))
    shop.completed(shop.ingest("anew", *pixels))
    assert shop.same("killed", "anew")

    clip = ("--encoder", TINY_CLIP)
    length = shop.timed(shop.ingest("clip_anew", *clip))
    kills += shop.killed(shop.command("reindex", *clip, collection="killed"), length)
    shop.completed(shop.command("reindex", *clip, collection="killed"))
    assert shop.same("killed", "clip_anew")
    assert shop.completed(shop.ingest("killed"))["unchanged"] == 230
    assert kills > 0, "no run was killed before its end"


def test_a_second_run_for_the_same_source_is_refused(shop: Shop) -> None:
    shop.draw(range(9), shade=0)
    with only_run(shop.uri, "twice", "s"):
        refused = lookalike(*shop.ingest("twice", "--encoder", "pixels"), cwd=shop.folder)
        other_source = lookalike(*shop.ingest("twice", "--encoder", "pixels", "--source-name", "t"), cwd=shop.folder)
    assert refused.returncode == 1
    assert f"another run, process {os.getpid()}, is bringing 's' into 'twice'" in refused.stderr.decode()
    assert other_source.returncode == 0
