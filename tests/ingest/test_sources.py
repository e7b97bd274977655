"""Sources: a copied or moved one is noticed before it doubles the collection; they are listed, renamed, removed."""

import json
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from catalogue import draw
from command import fails, lookalike, process_command, process_environment

import lookalike as api
from lookalike.encode.engine import Engine
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.admin.sources import rename_source
from lookalike.ingest.job import Job, run
from lookalike.ingest.pipeline.diff import ExistingImage
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.reports.report import ReadyRow, Report
from lookalike.ingest.run_lock import run_lock
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule
from lookalike.ingest.threshold import MoveOptions, Threshold
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.errors import AlreadyRunning, BadSettings, DuplicateSource, LimitExceeded
from lookalike.schema.milvus.store import Store
from lookalike.schema.settings import CollectionAddress

PIXELS = ("--encoder", "pixels")
_names = (f"sources{os.getpid()}_{number}" for number in range(1_000))


class Shop:
    """Ten products of two images in ./photos, in a collection."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.photos = folder, folder / "photos"
        # Milvus Lite serves one process at a time: each shop has a folder of its own.
        self.uri = uri if uri.startswith("http") else str(folder / "shop.db")
        self.collection = next(_names)
        for n in range(20):
            draw(self.photos / f"p{n // 2}" / f"{n}.png", n)

    def call(self, *arguments: object, status: int = 0, stdin: bytes = b"") -> Any:
        """Run a command on the collection; return what it prints as JSON, or its error message."""
        address = ("--uri", self.uri, "--collection", self.collection, "--format", "json")
        if status:
            return fails(status, *arguments, *address, cwd=self.folder)
        done = lookalike(*arguments, *address, cwd=self.folder, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sources(self) -> dict[str, tuple[int, int]]:
        """The images and products of each source, by its name in this folder."""
        listed = self.call("sources")["sources"]
        prefix = f"{self.folder}/"
        return {item["source"].removeprefix(prefix): (item["images"], item["products"]) for item in listed}

    def rows(self) -> dict[str, tuple[str, ...]]:
        fields = ("product_id", "image", "source", "image_hash", "metadata_hash", "metadata", "embedding")
        with Store.open(self.uri, collection=self.collection) as store:
            return {row["image_id"]: tuple(str(row[name]) for name in fields) for row in store.rows(fields=fields)}

    def move_job(self) -> Job:
        """What `lookalike ingest photos2 --move-source photos` would run."""
        return Job(
            source=FolderSource(self.folder / "photos2", FolderRule()),
            address=CollectionAddress(self.uri, "", self.collection),
            encoder=None,
            load_engine=lambda _: Engine(PixelEncoder(), 8),
            limits=PipelineLimits(workers=2),
            columns={},
            pruning=None,
            max_rejected=None,
            move=MoveOptions(str(self.photos), Threshold("20%")),
        )


@pytest.fixture
def shop(uri: str, tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, uri)
    assert shop.call("ingest", "photos", *PIXELS)["new"] == 20
    return shop


def test_a_moved_source_is_refused_before_anything_is_written(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    old, new = f"{shop.folder}/photos", f"{shop.folder}/photos2"
    expected = (
        f"20 of the first 20 images of '{new}' are in '{shop.collection}' already, as source '{old}'. Nothing was "
        f"written. If the source has moved: --move-source {old}. If it is the same source under another name: "
        f"--source-name {old}. To store the copies as a source of their own: --source-name {new}"
    )
    assert expected in shop.call("ingest", "photos2", status=2)
    assert expected in shop.call("ingest", "photos2", "--dry-run", status=2)
    with api.connect(shop.uri, collection=shop.collection) as collection:
        with pytest.raises(DuplicateSource, match=r"has moved: move_source .*another name: source_name "):
            collection.ingest(new)
        assert collection.ingest(new, source_name=old).metadata == 20
    assert shop.sources() == {"photos": (20, 10)}


def test_the_same_files_in_a_manifest_are_refused_by_their_paths(shop: Shop) -> None:
    lines = [json.dumps({"product_id": f"other{n}", "image": f"photos/p{n // 2}/{n}.png"}) for n in range(20)]
    (shop.folder / "shop.jsonl").write_text("\n".join(lines))
    for photo in shop.photos.rglob("*.png"):
        draw(photo, int(photo.stem) + 500)
    assert "20 of the first 20 images" in shop.call("ingest", "shop.jsonl", status=2)
    (shop.folder / "web.jsonl").write_text('{"product_id": "w", "image": "http://127.0.0.1:9/w.png"}')
    assert shop.call("ingest", "web.jsonl", "--dry-run")["new"] == 1


def test_a_source_of_its_own_may_share_images(shop: Shop) -> None:
    for n in range(11):
        draw(shop.folder / "other" / f"{n}.png", 100 + n)
    for n in range(10):
        draw(shop.folder / "other" / f"same{n}.png", n)
    for n in range(30):
        draw(shop.folder / "placeholders" / f"{n}.png", 3)
    (shop.folder / "broken").mkdir()
    (shop.folder / "broken" / "1.jpg").symlink_to("nowhere")
    assert shop.call("ingest", "other")["new"] == 21
    assert shop.call("ingest", "placeholders")["new"] == 30, "one image that both have is no copy of a source"
    assert shop.call("ingest", "photos", "--source-name", "twice")["new"] == 20, "a given name is meant"
    assert b"No such file" in lookalike("ingest", "broken", "--uri", shop.uri, cwd=shop.folder).stderr


def test_only_the_first_32_images_of_a_new_source_are_compared(shop: Shop) -> None:
    for n in range(60):
        draw(shop.folder / "many" / f"{n:02}.png", 1_000 + n)
    shop.call("ingest", "many")
    for n in range(44, 60):
        draw(shop.folder / "many" / f"{n:02}.png", 2_000 + n)
    (shop.folder / "many").rename(shop.folder / "moved")
    assert "32 of the first 32 images" in shop.call("ingest", "moved", status=2)


def test_standard_input_is_compared_too_and_none_of_its_rows_is_lost(shop: Shop) -> None:
    def rows(numbers: Iterable[int]) -> bytes:
        return "\n".join(
            json.dumps({"product_id": str(n), "image": str(draw(shop.folder / "x" / f"{n}.png", n))}) for n in numbers
        ).encode()

    assert shop.call("ingest", "-", stdin=rows(range(100, 150)))["new"] == 50
    address = ("--uri", shop.uri, "--collection", shop.collection)
    done = lookalike("ingest", "-", "--source-name", "other", *address, cwd=shop.folder, stdin=rows(range(200, 205)))
    assert done.returncode == 0
    shop.call("sources", "--remove", "standard input", "--yes")
    done = lookalike("ingest", "-", *address, cwd=shop.folder, stdin=rows(range(200, 205)))
    assert done.returncode == 2
    assert b"as source 'other'" in done.stderr


def test_a_source_is_moved_without_encoding_an_image(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    move = ("ingest", "photos2", "--move-source", f"{shop.folder}/photos")
    planned = shop.call(*move, "--dry-run")
    assert (planned["new"], planned["removed"]) == (20, 20)
    assert shop.sources() == {"photos": (20, 10)}
    done = shop.call(*move)
    assert (done["new"], done["embedded"], done["removed"]) == (20, 0, 20)
    assert shop.sources() == {"photos2": (20, 10)}
    again = shop.call(*move)
    assert (again["unchanged"], again["removed"]) == (20, 0), "the same command can be run again"
    rows = shop.rows()
    shop.collection = next(_names)
    shop.call("ingest", "photos2", *PIXELS)
    assert shop.rows() == rows


def test_a_source_is_moved_from_python(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    with api.connect(shop.uri, collection=shop.collection) as collection:
        summary = collection.ingest(shop.folder / "photos2", source_name="new", move_source=str(shop.photos))
        assert (summary.embedded, summary.removed) == (0, 20)
        assert collection.sources() == [api.Source("new", 20, 10)]
        with pytest.raises(BadSettings, match=r"there is no source 'nothing' in .*; it has 'new'"):
            collection.ingest(shop.folder / "photos2", source_name="new", move_source="nothing")


def test_a_move_from_an_unknown_source_or_to_itself_is_refused(shop: Shop) -> None:
    message = shop.call("ingest", "photos", "--move-source", "nothing", status=2)
    assert f"there is no source 'nothing' in '{shop.collection}'; it has '{shop.folder}/photos'" in message
    assert "is the source itself" in shop.call("ingest", "photos", "--move-source", shop.photos, status=2)
    shop.collection = next(_names)
    assert "has no rows" in shop.call("ingest", "photos", "--move-source", "nothing", *PIXELS, status=2)


def test_a_move_that_would_lose_images_deletes_nothing(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    for n in range(6):
        (shop.folder / "photos2" / f"p{n // 2}" / f"{n}.png").unlink()
    move = ("ingest", "photos2", "--move-source", str(shop.photos))
    refused = lookalike(*move, "--uri", shop.uri, "--collection", shop.collection, cwd=shop.folder)
    assert refused.returncode == 3
    assert b"6 of the 20 rows of" in refused.stderr
    assert b"add --max-removals 6" in refused.stderr
    assert shop.sources() == {"photos": (20, 10), "photos2": (14, 7)}
    assert shop.call(*move, "--max-removals", "6")["removed"] == 20
    assert shop.sources() == {"photos2": (14, 7)}


class Killed(Exception):
    """Ends a run where it is raised, as a kill does."""


class KilledAfterFirstRows(Report):
    def record_stored(self, rows: Iterable[ReadyRow]) -> None:
        raise Killed


class KilledAfterLastDeletion(Report):
    def record_removed(self, rows: Iterable[ExistingImage]) -> None:
        raise Killed


@pytest.mark.parametrize("report", [KilledAfterFirstRows, KilledAfterLastDeletion])
def test_a_killed_move_is_completed_by_the_next_run(shop: Shop, report: type[Report]) -> None:
    shop.photos.rename(shop.folder / "photos2")
    with pytest.raises(Killed):
        run(shop.move_job(), report(), CancelToken())
    shop.call("ingest", "photos2", "--move-source", str(shop.photos))
    assert shop.sources() == {"photos2": (20, 10)}


def test_a_move_waits_for_no_other_run_of_either_source(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    with run_lock(shop.uri, shop.collection, str(shop.photos)), pytest.raises(AlreadyRunning):
        run(shop.move_job(), Report(), CancelToken())


def test_a_move_of_a_source_that_cannot_be_read_completely_deletes_nothing(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    (shop.folder / "photos2" / "p0").rename(shop.folder / "elsewhere")
    (shop.folder / "photos2" / "p0").symlink_to("nowhere")
    with pytest.raises(LimitExceeded, match="Nothing was removed"):
        run(shop.move_job(), Report(), CancelToken())
    assert shop.sources()["photos"] == (20, 10)


def test_watch_moves_in_its_first_run_only(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "lite")
    shop.call("ingest", "photos", *PIXELS)
    shop.photos.rename(tmp_path / "photos2")
    address = ("--uri", shop.uri, "--collection", shop.collection)
    running = subprocess.Popen(
        process_command("ingest", "photos2", "--move-source", shop.photos, "--watch", "1", *address),
        cwd=tmp_path,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout
    assert b"20 new, 0 changed, 0 with other metadata, 0 unchanged, 20 removed" in running.stdout.readline()
    draw(tmp_path / "photos2" / "p3" / "new.png", 77)
    assert b"1 new" in running.stdout.readline()
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 0, err


def test_watch_does_not_wait_for_a_copied_source_to_change(shop: Shop) -> None:
    shop.photos.rename(shop.folder / "photos2")
    assert "--move-source" in shop.call("ingest", "photos2", "--watch", "600", status=2)


def test_a_renamed_source_is_unchanged_under_its_new_name(shop: Shop) -> None:
    rename = ("sources", "--rename", str(shop.photos), "the shop")
    assert shop.call(*rename, "--dry-run") == {"renamed": 20, "products": 10, "dry_run": True}
    assert shop.sources() == {"photos": (20, 10)}
    assert shop.call(*rename) == {"renamed": 20, "products": 10, "dry_run": False}
    assert shop.sources() == {"the shop": (20, 10)}
    summary = shop.call("ingest", "photos", "--source-name", "the shop", "--prune")
    assert (summary["unchanged"], summary["stored"], summary["removed"]) == (20, 0, 0)
    with api.connect(shop.uri, collection=shop.collection) as collection:
        assert collection.rename_source("the shop", "python", dry_run=True) == api.Source("python", 20, 10)
        assert collection.rename_source("the shop", "python") == api.Source("python", 20, 10)
        assert collection.ingest(shop.photos, source_name="python").unchanged == 20
        assert collection.sources() == [api.Source("python", 20, 10)]


def test_a_manifest_is_renamed_however_it_names_its_images(shop: Shop, tmp_path: Path) -> None:
    draw(tmp_path / "with space.png", 301)
    folder = tmp_path / "lists" / "deep"
    folder.mkdir(parents=True)
    references = [
        "../../photos/p0/0.png",
        "./../../photos/p0/1.png",
        str(draw(tmp_path / "full.png", 302)),
        draw(tmp_path / "uri.png", 303).as_uri(),
        (tmp_path / "with space.png").as_uri(),
        str(draw(folder / "beside.png", 304).name),
        f"./{draw(folder / 'dot.png', 305).name}",
    ]
    lines = [json.dumps({"product_id": "m", "image": reference}) for reference in references]
    manifest = folder / "m.jsonl"
    manifest.write_text("\n".join(lines))
    shop.call("ingest", manifest)
    shop.call("sources", "--rename", manifest, "list")
    assert shop.call("ingest", manifest, "--source-name", "list")["unchanged"] == len(references)

    manifest.write_text(json.dumps({"product_id": "m", "image": "x/../beside.png"}))
    shop.call("ingest", manifest, "--source-name", "odd")
    message = shop.call("sources", "--rename", "odd", "new", status=2)
    assert "1 of the 1 rows of 'odd' do not say" in message
    assert "--move-source OLD" in message


def test_a_rename_to_a_name_that_is_taken_is_refused(shop: Shop) -> None:
    draw(shop.folder / "other" / "1.png", 99)
    shop.call("ingest", "other", "--source-name", "taken")
    before = shop.rows()
    assert "there is a source 'taken' already" in shop.call("sources", "--rename", shop.photos, "taken", status=2)
    assert "called 'taken' already" in shop.call("sources", "--rename", "taken", "taken", status=2)
    assert "there is no source 'nothing'" in shop.call("sources", "--rename", "nothing", "x", status=2)
    assert shop.rows() == before


class StoreOfAKilledRename(Store):
    """Ends the rename before its second write, or after it has deleted half of the old rows."""

    def upsert(self, rows: Any) -> int:
        super().upsert(list(rows)[:5])
        raise Killed


class StoreOfALateKill(Store):
    """Ends the rename after it has deleted half of the old rows."""

    def delete(self, image_ids: Any) -> None:
        super().delete(image_ids[:10])
        raise Killed


@pytest.mark.parametrize("kind", [StoreOfAKilledRename, StoreOfALateKill])
def test_a_killed_rename_is_completed_by_the_next_one(shop: Shop, kind: type[Store]) -> None:
    with kind.open(shop.uri, collection=shop.collection) as store, pytest.raises(Killed):
        rename_source(store, str(shop.photos), "new")
    shop.call("sources", "--rename", shop.photos, "new")
    assert shop.sources() == {"new": (20, 10)}
    assert shop.call("ingest", "photos", "--source-name", "new")["unchanged"] == 20


def test_a_source_is_removed_after_a_confirmation(shop: Shop) -> None:
    draw(shop.folder / "other" / "1.png", 99)
    shop.call("ingest", "other")
    other = f"{shop.folder}/other"
    assert shop.call("sources", "--remove", other, "--dry-run") == {"removed": 1, "products": 1, "dry_run": True}
    assert "add --yes" in shop.call("sources", "--remove", other, status=2)
    assert "there is no source 'nothing'" in shop.call("sources", "--remove", "nothing", "--yes", status=2)
    assert shop.sources() == {"other": (1, 1), "photos": (20, 10)}
    assert shop.call("sources", "--remove", other, "--yes")["removed"] == 1
    assert shop.sources() == {"photos": (20, 10)}
    with api.connect(shop.uri, collection=shop.collection) as collection:
        assert collection.remove_source(str(shop.photos), dry_run=True) == api.DeleteResult(20, 10)
        assert collection.remove_source(str(shop.photos)) == api.DeleteResult(20, 10)
        assert collection.info().images == 0


@pytest.mark.parametrize("options", [("--dry-run",), ("--yes",), ("--rename", "a", "b", "--remove", "c")])
def test_options_of_sources_that_do_nothing_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert "Error" in fails(2, "sources", *options, cwd=tmp_path)
