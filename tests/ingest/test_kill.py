"""Runs that are killed at any moment: what was acknowledged stays, and the next run completes it.

LOOKALIKE_KILLS is how often each command is killed, two times by default; LOOKALIKE_SEED chooses the moments.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import lookalike, process_command, process_environment, wait_for_rows
from killed_shop import TINY_CLIP, Shop

from lookalike.ingest.run_lock import run_lock


@pytest.fixture
def shop(uri: str, tmp_path: Path) -> Shop:
    return Shop(tmp_path, uri)


def test_a_killed_run_is_completed_by_the_next_one(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "lite")
    shop.draw(range(240), shade=0)
    command = shop.ingest("killed", "--encoder", "pixels")
    running = subprocess.Popen(process_command(*command), cwd=tmp_path, env=process_environment())
    wait_for_rows(tmp_path / "kill.db")
    running.kill()
    assert running.wait() == -signal.SIGKILL, "the run ended before it was killed"

    summary = json.loads(lookalike(*command, "--format", "json", cwd=tmp_path).stdout)
    assert summary["unchanged"] > 0
    assert summary["new"] + summary["unchanged"] == 240
    lookalike(*shop.ingest("never_killed", "--encoder", "pixels"), cwd=tmp_path)
    assert shop.has_same_rows("killed", "never_killed")


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_same_rows(shop: Shop) -> None:
    shop.draw(range(240), shade=0)
    pixels = ("--encoder", "pixels")
    seconds = shop.measure(shop.ingest("never_killed", *pixels))

    kills = shop.kill_repeatedly(shop.ingest("killed", *pixels), seconds)
    summary = shop.run(shop.ingest("killed", *pixels))
    assert summary["new"] + summary["unchanged"] == 240
    assert shop.has_same_rows("killed", "never_killed")

    shop.draw(range(60, 80), shade=300)
    shop.draw(range(240, 250), shade=0)
    for n in range(20):
        (shop.folder / "photos" / f"p{n // 3}" / f"{n}.png").unlink()
    kills += shop.kill_repeatedly(shop.ingest("killed", "--prune"), seconds)
    shop.run(shop.ingest("killed", "--prune"))
    shop.run(shop.ingest("rebuilt", *pixels))
    assert shop.has_same_rows("killed", "rebuilt")

    clip = ("--encoder", TINY_CLIP)
    seconds = shop.measure(shop.ingest("clip_rebuilt", *clip))
    kills += shop.kill_repeatedly(shop.command("reindex", *clip, collection="killed"), seconds)
    shop.run(shop.command("reindex", *clip, collection="killed"))
    assert shop.has_same_rows("killed", "clip_rebuilt")
    assert shop.run(shop.ingest("killed"))["unchanged"] == 230
    assert kills > 0, "no run was killed before it ended"


def test_a_second_run_for_the_same_source_is_refused(shop: Shop) -> None:
    shop.draw(range(9), shade=0)
    with run_lock(shop.uri, "twice", "s"):
        refused = lookalike(*shop.ingest("twice", "--encoder", "pixels"), cwd=shop.folder)
        other_source = lookalike(*shop.ingest("twice", "--encoder", "pixels", "--source-name", "t"), cwd=shop.folder)
    assert refused.returncode == 1
    message = f"another run of 's' into 'twice' at {shop.uri} has not ended: process {os.getpid()} (`"
    assert message in refused.stderr.decode()
    assert other_source.returncode == 0
