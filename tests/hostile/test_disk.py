"""A disk that is full in each stage: the error says so, what was acknowledged stays, and the same command completes."""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from catalogue import draw
from command import lookalike
from hostile.conftest import Outcome
from hostile.crash_at import Point, run_until
from hostile.disasters import FILLER, fill
from hostile.kill_scenarios import TINY_CLIP
from hostile.rows import Rows, are_between, are_same, read_rows

AREA = "Full disks (a tmpfs without a free byte)"
_MORE_THAN_THE_RESERVE = "400m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, a little larger than what Milvus Lite wants to be free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_MORE_THAN_THE_RESERVE}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for n in range(20):
        draw(tmp_path / "photos" / f"p{n // 3}" / f"{n}.png", n)
    return tmp_path / "photos"


def ingest(photos: Path, uri: Path, *more: object) -> list[str]:
    options = ["--layout", "{product_id}/{image}", "--source-name", "shop", "--batch-size", "4", "--no-progress"]
    return ["ingest", str(photos), *options, "--encoder", "pixels", "--uri", str(uri), *map(str, more)]


@pytest.fixture
def shop(photos: Path, tmp_path: Path) -> Path:
    """A store on a disk with room."""
    assert lookalike(*ingest(photos, tmp_path / "shop.db"), cwd=tmp_path).returncode == 0
    return tmp_path / "shop.db"


@pytest.mark.parametrize(
    "point", [Point("before", "upsert", 1), Point("before", "upsert", 3), Point("before", "flush", 1)]
)
def test_a_store_whose_disk_fills_up_keeps_what_it_acknowledged(
    point: Point, disk: Path, photos: Path, shop: Path, outcome: Outcome
) -> None:
    store, everything = disk / "shop.db", read_rows(str(shop))
    stopped = run_until(
        ingest(photos, store, "--report", photos.parent / "report"), photos.parent, point, partial(fill, disk)
    )
    assert stopped.status == 1, stopped.output
    assert "free some space and run the same command again" in stopped.output
    assert "Traceback" not in stopped.output
    (disk / FILLER).unlink()
    rows: Rows = read_rows(str(store))
    assert are_between(rows, {}, everything)
    assert len(rows) >= stopped.events.count("report new")
    assert lookalike(*ingest(photos, store), cwd=disk).returncode == 0
    assert are_same(read_rows(str(store)), everything)
    outcome(
        AREA,
        f"Milvus Lite's disk fills up just {point.moment} {point.event} {point.number}, after the space was checked",
        "the run stops and says so; every acknowledged row stays; with space the same command completes",
    )


def test_a_disk_without_room_for_milvus_lite_is_refused_before_a_write(
    disk: Path, photos: Path, outcome: Outcome
) -> None:
    fill(disk)
    refused = lookalike(*ingest(photos, disk / "shop.db"), cwd=disk)
    assert refused.returncode == 1
    message = refused.stderr.decode()
    assert "Traceback" not in message
    assert "320 MB" in message or "No space left" in message, message
    outcome(AREA, "a new Milvus Lite store on it", "refused, with the reason")


def test_a_report_that_cannot_be_written_stops_the_run(disk: Path, photos: Path, shop: Path, outcome: Outcome) -> None:
    fill(disk)
    for n in range(20):
        draw(photos / f"p{n // 3}" / f"{n}.png", n + 100, at=10**18 + 1)
    stopped = lookalike(*ingest(photos, shop, "--report", disk / "report.jsonl"), cwd=disk)
    assert stopped.returncode == 2
    assert "cannot be written: No space left on device" in stopped.stderr.decode()
    completed = lookalike(*ingest(photos, shop), cwd=disk)
    assert completed.returncode == 0
    assert len(read_rows(str(shop))) == 20
    outcome(AREA, "--report", "the run stops and names the file; without it the same command completes")


def test_a_profile_that_cannot_be_written_ends_a_complete_run(
    disk: Path, photos: Path, tmp_path: Path, outcome: Outcome
) -> None:
    fill(disk)
    done = lookalike(*ingest(photos, tmp_path / "new.db", "--profile", disk / "profile.json"), cwd=disk)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert len(read_rows(str(tmp_path / "new.db"))) == 20
    outcome(AREA, "--profile", "the run completes, then its end says that the profile was not written")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_an_export_that_cannot_be_written_leaves_the_earlier_file(
    suffix: str, disk: Path, shop: Path, outcome: Outcome
) -> None:
    file = disk / f"out.{suffix}"
    file.write_text("an earlier export")
    fill(disk)
    failed = lookalike("export", file, "--uri", shop, cwd=disk)
    assert failed.returncode == 2
    assert f"{str(file)!r} cannot be written: " in failed.stderr.decode()
    assert file.read_text() == "an earlier export"
    assert {path.name for path in disk.iterdir()} == {file.name, FILLER}
    outcome(AREA, f"`export out.{suffix}`", "says so; the earlier file is whole, and nothing else is left")


def test_a_sheet_that_cannot_be_drawn_is_an_error(disk: Path, shop: Path, outcome: Outcome) -> None:
    fill(disk)
    failed = lookalike("search", "--product", "p0", "--sheet", disk / "sheet.png", "--uri", shop, cwd=disk)
    message = failed.stderr.decode()
    assert failed.returncode == 2, message
    assert "No space left on device" in message
    assert "Traceback" not in message
    outcome(AREA, "`search --sheet`", "an error with the reason")


def test_a_cache_of_encoders_that_cannot_be_written_is_done_without(
    disk: Path, photos: Path, tmp_path: Path, outcome: Outcome
) -> None:
    fill(disk)
    command = ["--encoder", TINY_CLIP, "--uri", tmp_path / "clip.db", "--source-name", "shop", "--no-progress"]
    layout = ["--layout", "{product_id}/{image}"]
    done = lookalike("ingest", photos, *layout, *command, cwd=disk, LOOKALIKE_CACHE=str(disk / "cache"))
    assert done.returncode == 0, done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert len(read_rows(str(tmp_path / "clip.db"))) == 20
    outcome(AREA, "the encoder cache", "the run completes without it")
