"""A dry run says what would be done, changes nothing, and fails where the real run would fail."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from catalogue import draw
from command import fails, lookalike
from conftest import a_row
from pyarrow import parquet

from lookalike.cli import COMMANDS, main
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Versions

OTHER = replace(PixelEncoder.fingerprint, encoder="other", weights="other")
REINDEX = ("reindex", "--encoder", "efficientnet-lite0", "--engine", "torch")

Arguments = tuple[str, ...]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten products of two images; an unfinished version; one that was live before; an export with other rows."""
    for n in range(20):
        draw(tmp_path / "photos" / f"p{n // 2}" / f"{n}.png", 12 * n)
    assert lookalike("ingest", "photos", "--encoder", "pixels", cwd=tmp_path).returncode == 0
    assert lookalike("ingest", "photos/p0", "-c", "other", "--encoder", "pixels", cwd=tmp_path).returncode == 0
    assert lookalike("export", "rows.parquet", "-c", "other", cwd=tmp_path).returncode == 0
    assert lookalike("export", "same.parquet", cwd=tmp_path).returncode == 0
    return tmp_path


def add_versions(shop: Path) -> tuple[str, str]:
    """Make a version that was live before the live one, and one that never was; return their names."""
    with Versions(str(shop / "lookalike.db")) as versions:
        live, earlier = versions.live.name, versions.make(OTHER)
        versions.make_live(earlier)
        versions.make_live(live)
        return earlier, versions.make(OTHER)


def state(shop: Path) -> tuple[object, ...]:
    """Everything that a command could change: each row with its vector, the versions, the collections."""
    uri = str(shop / "lookalike.db")
    assert lookalike("export", "state.parquet", "--uri", uri, cwd=shop).returncode == 0
    rows = parquet.read_table(shop / "state.parquet").sort_by("image_id").to_pylist()
    with Versions(uri) as versions:
        listed = [(version.name, version.live, version.left) for version in versions.all()]
    return rows, listed, Store.find(uri, collection="copy") is None


def prepare_rollback(shop: Path) -> Arguments:
    add_versions(shop)
    return ("rollback",)


def change_photos(shop: Path) -> Arguments:
    (shop / "photos" / "p1" / "2.png").unlink()
    draw(shop / "photos" / "p1" / "new.png", 7)
    return ("ingest", "photos", "--prune")


COMMANDS_THAT_WRITE: dict[str, tuple[Callable[[Path], Arguments], str]] = {
    "ingest": (
        change_photos,
        "to store 1, to reject 0: 1 new, 0 changed",
    ),
    "delete": (lambda _: ("delete", "--product", "p1"), "would remove 2 images of 1 products"),
    "reindex": (
        lambda _: REINDEX,
        "would encode 20 images for products__v2, without 0 that cannot be read, and point products to it",
    ),
    "rollback": (prepare_rollback, "products would point to products__v2_"),
    "versions": (lambda shop: ("versions", "--drop", add_versions(shop)[1]), "would drop products__v3_"),
    "import": (
        lambda _: ("import", "rows.parquet"),
        "2 rows → products at ./lookalike.db, 0 of them in place",
    ),
    "import again": (
        lambda _: ("import", "same.parquet"),
        "20 rows → products at ./lookalike.db, 20 of them",
    ),
    "import new": (
        lambda _: ("import", "rows.parquet", "-c", "copy"),
        "would write 2 rows → copy at ./lookalike.db, a new collection",
    ),
}


@pytest.mark.parametrize("name", COMMANDS_THAT_WRITE)
def test_a_dry_run_says_what_it_would_do_and_changes_nothing(shop: Path, name: str) -> None:
    prepare, expected = COMMANDS_THAT_WRITE[name]
    command = prepare(shop)
    before = state(shop)
    done = lookalike(*command, "--dry-run", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert expected in (done.stdout + done.stderr).decode()
    assert json.loads(lookalike(*command, "--dry-run", "--json", cwd=shop).stdout)["dry_run"] is True
    assert state(shop) == before


def test_every_command_that_writes_has_a_dry_run() -> None:
    context = click.Context(main)
    dry = {name for name in COMMANDS if "--dry-run" in list_options(main.get_command(context, name))}
    assert {name.split()[0] for name in COMMANDS_THAT_WRITE} | {"tune"} <= dry


def list_options(command: click.Command | None) -> list[str]:
    assert command is not None
    return [name for parameter in command.params for name in parameter.opts]


def remove_a_photo(shop: Path) -> Arguments:
    (shop / "photos" / "p3" / "6.png").write_text("no image")
    return REINDEX


def name_the_live_version(shop: Path) -> Arguments:
    _, unfinished = add_versions(shop)
    with Versions(str(shop / "lookalike.db")) as versions:
        return ("versions", "--drop", unfinished, "--drop", versions.live.name)


def make_another_encoder(shop: Path) -> Arguments:
    with Store.create(str(shop / "lookalike.db"), OTHER, collection="copy") as store:
        store.upsert(
            [a_row("1.jpg", vector=np.ones(OTHER.dim, dtype=np.float32))]
        )  # a collection without rows takes any encoder
    return ("import", "rows.parquet", "-c", "copy")


@pytest.mark.parametrize(
    ("status", "prepare", "message"),
    [
        (2, lambda _: ("delete", "--product", "nope", "--yes"), "no product 'nope'"),
        (3, remove_a_photo, "1 of 20 images cannot be read any more and would be missing, more than --max-rejected 0"),
        (2, lambda _: ("rollback",), "no version of 'products' that was live before"),
        (2, lambda shop: ("rollback", "--to", add_versions(shop)[1]), "was never live"),
        (2, name_the_live_version, "is live"),
        (1, make_another_encoder, "the collection 'copy' was filled by 'other'"),
        (2, lambda _: ("import", "photos/p0/0.png"), "no Parquet file"),
    ],
)
def test_a_dry_run_fails_where_the_real_run_fails(
    shop: Path, status: int, prepare: Callable[[Path], Arguments], message: str
) -> None:
    command = prepare(shop)
    with Versions(str(shop / "lookalike.db")) as versions:
        before = [version.name for version in versions.all()]
    assert message in fails(status, *command, "--dry-run", cwd=shop)
    with Versions(str(shop / "lookalike.db")) as versions:
        assert [version.name for version in versions.all()] == before
    assert message in fails(status, *command, cwd=shop)
    if command[0] == "versions":
        with Versions(str(shop / "lookalike.db")) as versions:
            assert [version.name for version in versions.all()] == before, "all are dropped, or none"


def test_a_dry_run_of_a_reindex_counts_what_cannot_be_read_and_what_is_left_to_do(shop: Path) -> None:
    remove_a_photo(shop)
    allowed = (*REINDEX, "--max-rejected", "1")
    plan = json.loads(lookalike(*allowed, "--dry-run", "--json", cwd=shop).stdout)
    assert (plan["stored"], plan["rejected"], plan["after"]) == (19, 1, "products__v2")
    message = fails(3, *REINDEX, cwd=shop)
    [begun] = {word.strip("().") for word in message.split() if word.startswith("(products__v2_")}
    plan = json.loads(lookalike(*allowed, "--dry-run", "--json", cwd=shop).stdout)
    assert (plan["stored"], plan["rejected"], plan["after"]) == (0, 1, begun)
    moved = json.loads(lookalike(*allowed, "--json", cwd=shop).stdout)
    assert (moved["stored"], moved["rejected"], moved["after"], moved["dry_run"]) == (0, 1, begun, False)
    same = lookalike(*allowed, "--dry-run", cwd=shop)
    assert b"is filled by efficientnet-lite0 already; nothing to do" in same.stdout


def test_no_rate_is_printed_for_a_run_that_embedded_nothing(shop: Path) -> None:
    again = lookalike("ingest", "photos", cwd=shop)
    assert b"20 unchanged" in again.stdout
    assert b"images/s" not in again.stdout
    change_photos(shop)
    assert b"images/s" in lookalike("ingest", "photos", cwd=shop).stdout
