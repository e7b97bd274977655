"""Killed at any moment: what was acknowledged stays, and the next run does the rest.

LOOKALIKE_KILLS says how often each step is killed; a few times by default.
"""

import json
import os
import signal
import subprocess
from pathlib import Path
from random import Random

import pytest
from command import ROOT, lookalike, process_command, process_environment, wait_for_rows
from killed_shop import Shop

from lookalike.ingest.run_lock import run_lock

TINY_CLIP = str(ROOT / "tests" / "tiny_clip")
KILLS = int(os.environ.get("LOOKALIKE_KILLS", "2"))
SEED = int(os.environ.get("LOOKALIKE_SEED", "0"))
FIELDS = ("product_id", "image", "source", "image_hash", "metadata_hash", "image_size", "image_mtime", "metadata")

_chance = Random(SEED)


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
    with run_lock(shop.uri, "twice", "s"):
        refused = lookalike(*shop.ingest("twice", "--encoder", "pixels"), cwd=shop.folder)
        other_source = lookalike(*shop.ingest("twice", "--encoder", "pixels", "--source-name", "t"), cwd=shop.folder)
    assert refused.returncode == 1
    assert f"another run, process {os.getpid()}, is bringing 's' into 'twice'" in refused.stderr.decode()
    assert other_source.returncode == 0
