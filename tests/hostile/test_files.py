"""Photos that change while they are read, clocks that go back, and very many of them."""

import os
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from catalogue import LONG_AGO, draw
from command import lookalike, process_command, process_environment
from hostile.conftest import Outcome
from hostile.crash_at import Point, run_until
from hostile.disasters import GROWN, LINKS, STRANGE, replace_photos, set_clock_back
from hostile.kill_scenarios import TINY_CLIP
from hostile.rows import are_same, read_rows
from PIL import Image

from lookalike.ingest.sources.files import read_file
from lookalike.schema.errors import BadImage

AREA = "Files that change"
MANY = 100_000

LISTED = Point("after", "list", 2)
"""The first image is listed twice: once as an example of the layout."""


def ingest(folder: Path, *more: str, uri: str = "shop.db") -> list[str]:
    options = ["--layout", "{product_id}/{image}", "--source-name", "shop", "--no-progress", "--uri", uri]
    return ["ingest", str(folder / "photos"), *options, "--encoder", "pixels", *more]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Photos that have an uneventful time, and some that do not."""
    for number, name in enumerate(["a", "b", *STRANGE, *GROWN, "swapped", "swap_with", "z"]):
        draw(tmp_path / "photos" / "p" / f"{name}.png", number)
    return tmp_path


def test_photos_that_turn_into_something_else_are_rejected_while_the_run_goes_on(shop: Path, outcome: Outcome) -> None:
    report = shop / "report.jsonl"
    done = run_until(
        [*ingest(shop), "--report", str(report)],
        shop,
        LISTED,
        partial(replace_photos, shop / "photos" / "p"),
    )
    assert done.status == 0, done.output
    rows = {Path(row.values[1]).stem for row in read_rows(str(shop / "shop.db")).values()}
    # Bytes after the end of a PNG do not matter.
    assert rows == {"a", "b", "z", "swapped", "swap_with", "padded"}
    lines = report.read_text()
    for name in (*STRANGE, "grown"):
        assert f"/{name}.png" in lines
    assert done.events.count("report rejected") == len(STRANGE) + 1
    what = f"vanishes, grows to 300 MB, or turns into a fifo, a folder, or a link to {', '.join(LINKS.values())}"
    outcome(
        AREA, f"after the folder was listed a photo {what}", "each is rejected with the reason; all others are stored"
    )


def test_a_photo_that_was_replaced_while_it_was_listed_is_seen_by_a_later_run(shop: Path, outcome: Outcome) -> None:
    run_until(ingest(shop), shop, LISTED, partial(replace_photos, shop / "photos" / "p"))
    again = lookalike(*ingest(shop, "--prune", "--prune-unreadable", "--max-removals", "100%"), cwd=shop)
    assert again.returncode == 1 or again.returncode == 0, again.stderr.decode()
    fresh = lookalike(*ingest(shop, uri="fresh.db"), cwd=shop)
    assert fresh.returncode == 0, fresh.stderr.decode()
    assert are_same(read_rows(str(shop / "shop.db")), read_rows(str(shop / "fresh.db")))
    outcome(AREA, "a photo is replaced between listing and reading", "the next ingest gives the rows of a fresh one")


def test_a_file_with_more_bytes_than_its_status_says_is_not_read_into_memory(outcome: Outcome) -> None:
    with pytest.raises(BadImage, match="is the limit"):
        read_file("/proc/self/pagemap")
    outcome(AREA, "a file of /proc whose size is 0 and whose content is endless", "rejected after 256 MB")


@pytest.mark.parametrize("years", [-1, 1], ids=["back", "into the future"])
def test_a_changed_photo_is_seen_wherever_its_mtime_went(years: int, tmp_path: Path, outcome: Outcome) -> None:
    photo = draw_bitmap(tmp_path, 0)
    assert lookalike(*ingest(tmp_path), cwd=tmp_path).returncode == 0
    size = photo.stat().st_size
    draw_bitmap(tmp_path, 1, at=LONG_AGO + years * 365 * 86_400 * 10**9)
    assert photo.stat().st_size == size
    changed = lookalike(*ingest(tmp_path, "--format", "json"), cwd=tmp_path)
    assert b'"changed": 1' in changed.stdout, changed.stdout
    where = "back" if years < 0 else "into the future"
    outcome("Clocks", f"a photo has other bytes of the same size, its mtime went {where}", "it is embedded again")


def test_a_photo_from_the_future_is_read_by_every_run(tmp_path: Path, outcome: Outcome) -> None:
    """On a machine whose clock stands back, the time of no file can be trusted."""
    tomorrow = time.time_ns() + 86_400 * 10**9
    draw_bitmap(tmp_path, 0, at=tomorrow)
    assert lookalike(*ingest(tmp_path), cwd=tmp_path).returncode == 0
    draw_bitmap(tmp_path, 1, at=tomorrow)
    changed = lookalike(*ingest(tmp_path, "--format", "json"), cwd=tmp_path)
    assert b'"changed": 1' in changed.stdout, changed.stdout
    what = "the clock was set back, so that all photos are from the future; one changes, its size and mtime do not"
    outcome("Clocks", what, "it is embedded again")


def test_a_rollback_finds_the_version_before_after_the_clock_was_set_back(tmp_path: Path, outcome: Outcome) -> None:
    draw_bitmap(tmp_path, 0)
    assert lookalike(*ingest(tmp_path), cwd=tmp_path).returncode == 0
    address = ["--uri", str(tmp_path / "shop.db")]
    versions = []
    for days, encoder in enumerate((TINY_CLIP, "pixels", TINY_CLIP)):
        # Each move of the alias is a day before the one before.
        clock = partial(set_clock_back, days)
        command = ["reindex", "--encoder", encoder, "--engine", "torch", "--no-progress", *address]
        done = run_until(command, tmp_path, Point("before", "event", 1), clock)
        assert done.status == 0, done.output
        versions.append(done.output.split("now points to ")[1].split(":")[0])
    rolled_back = lookalike("rollback", "--format", "json", *address, cwd=tmp_path)
    assert versions[1].encode() in rolled_back.stdout, (versions, rolled_back.stdout)
    outcome("Clocks", "the clock goes back a day before each of three reindexes", "`rollback` finds the version before")


def draw_bitmap(folder: Path, colour: int, *, at: int = LONG_AGO) -> Path:
    """Draw an image whose file has the same size whatever its colour."""
    photo = folder / "photos" / "p" / "0.bmp"
    photo.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (colour, 90, 30)).save(photo)
    os.utime(photo, ns=(at, at))
    return photo


def test_a_hundred_thousand_photos_need_little_memory(server: str, tmp_path: Path, outcome: Outcome) -> None:
    """Links to fifty photos: what is measured is the memory for the catalogue."""
    for n in range(50):
        draw(tmp_path / "kinds" / f"{n}.png", n)
    for n in range(MANY):
        photo = tmp_path / "photos" / f"p{n % 100}" / f"{n}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.hardlink_to(tmp_path / "kinds" / f"{n % 50}.png")
    command = process_command(*ingest(tmp_path, "--collection", "many", uri=server))
    run = subprocess.Popen(command, cwd=tmp_path, env=process_environment(), stdout=subprocess.PIPE)
    _, status, usage = os.wait4(run.pid, 0)
    assert status == 0
    assert run.stdout
    assert f"stored {MANY}".encode() in run.stdout.read()
    megabytes = usage.ru_maxrss // 1024
    assert megabytes < 1_000
    outcome(
        "Large catalogues",
        f"{MANY:,} files of a hundred bytes into a server, the encoder `pixels`",
        f"all stored; the process has {megabytes} MB at most, all of Python included",
    )
