"""Photos that change while they are read, clocks that go back, and very many of them."""

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
from catalogue import LONG_AGO, draw
from command import lookalike, process_command, process_environment
from hostile.conftest import Outcome
from hostile.crash_at import Point, run_until
from hostile.disasters import GROWN, LINKS, STRANGE, replace_photos
from hostile.rows import are_same, read_rows

from lookalike.ingest.sources.files import read_file
from lookalike.schema.errors import BadImage

AREA = "Files that change"
MANY = 100_000


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
        Point("after", "list", 1),
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
    run_until(ingest(shop), shop, Point("after", "list", 1), partial(replace_photos, shop / "photos" / "p"))
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
    photo = draw(tmp_path / "photos" / "p" / "0.png", 0)
    assert lookalike(*ingest(tmp_path), cwd=tmp_path).returncode == 0
    size = photo.stat().st_size
    draw(photo, 1, at=LONG_AGO + years * 365 * 86_400 * 10**9 * 100)
    assert photo.stat().st_size == size, "the test needs files of one size"
    changed = lookalike(*ingest(tmp_path, "--format", "json"), cwd=tmp_path)
    assert b'"changed": 1' in changed.stdout, changed.stdout
    where = "back" if years < 0 else "into the future"
    outcome("Clocks", f"a photo has other bytes of the same size, its mtime went {where}", "it is embedded again")


def test_ingest_works_on_a_machine_whose_clock_stands_years_back(tmp_path: Path, outcome: Outcome) -> None:
    """Every file is from the future, so that none of their times can be trusted: each is read again."""
    for n in range(3):
        draw(tmp_path / "photos" / "p" / f"{n}.png", n, at=LONG_AGO)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\n_now, _now_ns = time.time, time.time_ns\n_years = 30 * 365 * 86_400\n"
        "time.time = lambda: _now() - _years\ntime.time_ns = lambda: _now_ns() - _years * 10**9\n"
    )
    environment = process_environment()
    environment["PYTHONPATH"] = f"{site}{os.pathsep}{environment['PYTHONPATH']}"
    for changed in range(2):
        draw(tmp_path / "photos" / "p" / "0.png", 10 + changed, at=LONG_AGO)
        done = subprocess.run(
            process_command(*ingest(tmp_path)), cwd=tmp_path, env=environment, capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr.decode()
    draw(tmp_path / "photos" / "p" / "0.png", 11, at=LONG_AGO)
    assert lookalike(*ingest(tmp_path, uri="fresh.db"), cwd=tmp_path).returncode == 0
    stale, fresh = (read_rows(str(tmp_path / name)) for name in ("shop.db", "fresh.db"))
    assert {key: row.values[3] for key, row in stale.items()} == {key: row.values[3] for key, row in fresh.items()}
    outcome(
        "Clocks", "the clock stands 30 years back; a photo changes, its size and mtime do not", "the change is seen"
    )
