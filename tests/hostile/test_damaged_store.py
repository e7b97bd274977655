"""A store whose files are damaged, cut short or missing, and one of a newer version: refused with a clear error, and
left as it is."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from catalogue import draw
from command import lookalike
from hostile.conftest import Outcome
from hostile.crash_at import Point, run_until
from hostile.rows import are_same, read_rows

from lookalike.schema.collection import LAYOUT_PROPERTY
from lookalike.schema.milvus.connection import Connection
from lookalike.schema.milvus.versions import Versions

Damage = Callable[[Path], object]

DAMAGES: Mapping[str, Damage] = {
    "a byte flipped": lambda file: _flip(file, file.stat().st_size // 2),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
}
NEEDED = (
    *("aliases.json", "collections/*/manifest.json", "collections/*/schema.json"),
    *("collections/*/partitions/*/data/*_000012.parquet", "collections/*/partitions/*/delta/*.parquet"),
)
"""A file of each kind without which rows would be lost, or deleted ones come back."""

EXPENDABLE = ("collections/*/wal/*.arrow", "collections/*/manifest.json.prev")
AREA = "Damaged stores"


class Shop:
    """Twelve photos, of which one was changed, one removed, and one changed by a run that was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.photos = folder, folder / "photos"
        for n in range(12):
            draw(self._photo(n), n)
        self.ingest("shop.db", "--encoder", "pixels")
        draw(self._photo(0), 50, at=10**18 + 1)
        self._photo(4).unlink()
        self.ingest("shop.db")
        draw(self._photo(1), 51, at=10**18 + 1)
        killed = run_until([*self.command("shop.db")], folder, Point("before", "flush", 1))
        assert killed.status == -9, killed.output
        shutil.copytree(folder / "shop.db", folder / "copy.db")
        self.ingest("copy.db")
        self.rows = read_rows(str(folder / "copy.db"))

    def command(self, uri: str) -> list[str]:
        options = ["--layout", "{product_id}/{image}", "--source-name", "shop", "--prune", "--no-progress"]
        return ["ingest", str(self.photos), *options, "--uri", uri]

    def ingest(self, uri: str, *more: str) -> None:
        done = lookalike(*self.command(uri), *more, cwd=self.folder)
        assert done.returncode == 0, done.stderr.decode()

    def damage(self, file: str, damage: Damage) -> Path:
        """Copy the store and damage one of its files; return the copy."""
        store = self.folder / "damaged.db"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.folder / "shop.db", store)
        [path] = store.glob(file)
        damage(path)
        return store

    def _photo(self, n: int) -> Path:
        return self.photos / f"p{n // 3}" / f"{n}.png"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("damaged"))


def hashes(store: Path) -> dict[str, str]:
    """The hash of every file of Milvus Lite, but for its lock, which has no content."""
    files = [file for file in store.rglob("*.*") if file.is_file() and file.name != "lookalike-process.json"]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def commands(shop: Shop, uri: str) -> list[list[str]]:
    address = ["--uri", uri]
    short = [["info"], ["search", "--product", "p1"], ["export", "rows.jsonl"], ["versions"], ["rollback"]]
    more = [["delete", "--product", "p1", "--yes"], ["reindex", "--encoder", "pixels"], ["duplicates"]]
    return [shop.command(uri), *([*command, *address] for command in short + more)]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", NEEDED)
def test_a_store_with_a_damaged_file_is_refused_and_left_as_it_is(
    file: str, how: str, shop: Shop, outcome: Outcome
) -> None:
    store = shop.damage(file, DAMAGES[how])
    before = hashes(store)
    for command in commands(shop, "damaged.db"):
        refused = lookalike(*command, cwd=shop.folder)
        message = refused.stderr.decode()
        assert refused.returncode == 1, (command, message)
        assert "the store damaged.db is damaged: " in message
        assert "Restore the folder from a backup; or move it away" in message
        assert hashes(store) == before, command
    outcome(AREA, f"Milvus Lite: `{file}` {how}", "every command says that the store is damaged, and changes nothing")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", EXPENDABLE)
def test_what_a_damaged_log_has_lost_comes_back_with_the_next_ingest(
    file: str, how: str, shop: Shop, outcome: Outcome
) -> None:
    store = shop.damage(file, DAMAGES[how])
    shop.ingest("damaged.db")
    assert are_same(read_rows(str(store)), shop.rows)
    lost = "the rows of the log may be lost without a word; " if "wal" in file else ""
    outcome(AREA, f"Milvus Lite: `{file}` {how}", f"{lost}the next `ingest` gives all rows")


@pytest.mark.parametrize(
    ("file", "bits", "step"), [(NEEDED[0], 1, 1), (NEEDED[1], 1, 4), (NEEDED[2], 1, 24), (NEEDED[3], 255, 96)]
)
def test_a_flipped_bit_ends_no_command_with_a_traceback(
    file: str, bits: int, step: int, shop: Shop, outcome: Outcome
) -> None:
    [path] = (shop.folder / "shop.db").glob(file)
    places = range(0, path.stat().st_size, step)
    refused = 0
    for place in places:
        store = shop.damage(file, lambda path, place=place: _flip(path, place, bits))  # type: ignore[misc]
        before = hashes(store)
        done = lookalike("export", "rows.jsonl", "--uri", "damaged.db", cwd=shop.folder)
        assert done.returncode in (0, 1, 2), (place, done.stderr.decode())
        assert b"Traceback" not in done.stderr
        if b"the store damaged.db is damaged" in done.stderr:
            assert hashes(store) == before, place
        refused += done.returncode > 0
    assert refused
    outcome(
        AREA,
        f"Milvus Lite: `{file}` with other bits at one of {len(places)} places",
        f"{refused} times refused; {len(places) - refused} times not noticed: Milvus Lite stores no checksums",
    )


@pytest.mark.parametrize("kind", ["Milvus Lite", "server"])
def test_a_collection_of_a_newer_version_is_refused(
    kind: str, shop: Shop, request: pytest.FixtureRequest, outcome: Outcome
) -> None:
    uri = request.getfixturevalue("server") if kind == "server" else "newer.db"
    collection = "newer"
    made = lookalike(*shop.command(uri), "--encoder", "pixels", "--collection", collection, cwd=shop.folder)
    assert made.returncode == 0, made.stderr.decode()
    path = uri if kind == "server" else str(shop.folder / uri)
    with Versions(path, collection=collection) as versions:
        version = versions.live.name
    connection = Connection.connect(path, "")
    connection.call("alter_collection_properties", version, {LAYOUT_PROPERTY: "99"})
    connection.close()
    before = hashes(Path(path))
    for command in commands(shop, uri):
        refused = lookalike(*command, "--collection", collection, cwd=shop.folder)
        assert refused.returncode == 2, (command, refused.stderr.decode())
        if "rollback" not in command:
            assert "layout 99" in refused.stderr.decode(), command
        assert hashes(Path(path)) == before
    outcome(AREA, f"a collection of layout 99 on {kind}", "every command refuses it and names the layout")


def _flip(file: Path, place: int, bits: int = 255) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= bits
    file.write_bytes(content)
