"""Commands to kill at every write, and the collections that they start from."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from catalogue import draw
from command import ROOT, lookalike
from hostile.rows import Rows, read_rows

from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow

TINY_CLIP = str(ROOT / "tests" / "tiny_clip")
LAYOUT = "{category}/{product_id}/{image}"
_FEW_NUMBERS = Fingerprint("test", "none", 8, "none", "none")
_IMPORTED_ROWS = 2_100
"""Three messages."""


@dataclass(frozen=True, slots=True)
class Place:
    """A collection in a store of its own folder, or in a server."""

    folder: Path
    uri: str
    collection: str

    @property
    def address(self) -> list[str]:
        return ["--uri", self.uri, "--collection", self.collection]

    @property
    def is_server(self) -> bool:
        return "://" in self.uri

    def run(self, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
        """Run a command in this process; return what it printed."""
        done = lookalike(*arguments, *self.address, cwd=self.folder)
        assert done.returncode in statuses, f"{arguments}: {done.stderr.decode()}"
        return done.stdout.decode()

    def rows(self) -> Rows:
        return read_rows(self.uri, self.collection)

    def version(self, *, live: bool) -> str:
        """Return the live version, or the other one."""
        versions = json.loads(self.run("versions", "--format", "json"))["versions"]
        [name] = [version["name"] for version in versions if version["live"] == live]
        return str(name)


Command = Callable[[Place], list[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a collection is before a command, and the command."""

    title: str
    command: Command
    setup: Sequence[Command] = ()
    is_whole: bool = False
    """Whether the collection is at any moment all as before or all as after, not in between."""
    keeps_images: bool = False
    """Whether no image may be missing at any moment, under one name of its source or under both."""
    statuses: Sequence[int] = (0,)
    """How the command may end when it is run again."""


@dataclass(slots=True)
class Shop:
    """Photos that have changed since they were ingested, and files of both states to import."""

    folder: Path
    photos: Path = field(init=False)
    scenarios: Mapping[str, Scenario] = field(init=False)

    def __post_init__(self) -> None:
        self.photos = self.folder / "photos"
        place = Place(self.folder, str(self.folder / "shop.db"), "products")
        for n in range(30):
            self._draw(n, n)
        place.run(*self._ingest(place), "--encoder", "pixels")
        place.run("export", "before.parquet")
        self._change()
        place.run(*self._ingest(place))
        place.run("export", "after.parquet")
        self._write_rows(self.folder / "many.db")
        self.scenarios = _list_scenarios(self.folder, self._ingest)

    def _draw(self, n: int, colour: int, *, at: int = 10**18) -> Path:
        return draw(self.photos / f"c{n % 3}" / f"p{n // 3}" / f"{n}.png", colour, at=at)

    def _change(self) -> None:
        """Remove six photos, change five, change the metadata of five, add five."""
        for n in range(6):
            self._draw(n, n).unlink()
        for n in range(6, 11):
            self._draw(n, n + 300, at=10**18 + 1)
        for n in range(11, 16):
            self._draw(n, n).with_suffix(".json").write_text('{"price": 5}')
        for n in range(30, 35):
            self._draw(n, n)

    def _ingest(self, _: Place) -> list[str]:
        options = ["--source-name", "shop", "--no-progress", "--batch-size", "4", "--report", "report.jsonl"]
        return ["ingest", str(self.photos), "--layout", LAYOUT, *options, "--prune", "--max-removals", "100%"]

    def _write_rows(self, uri: Path) -> None:
        """Export more rows than a message has."""
        vectors = np.random.default_rng(0).normal(size=(_IMPORTED_ROWS, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = [
            ImageRow(f"{n:032x}", f"p{n // 3}", v, f"{n}.png", "shop", "a" * 32, "b" * 32, 1, 1, "", {"n": n})
            for n, v in enumerate(vectors)
        ]
        with Store.create(str(uri), _FEW_NUMBERS) as store:
            store.upsert(rows)
        Place(self.folder, str(uri), "products").run("export", "many.parquet")


def _list_scenarios(folder: Path, ingest: Command) -> dict[str, Scenario]:
    def import_file(name: str) -> Command:
        return lambda _: ["import", str(folder / name)]

    def reindex(_: Place) -> list[str]:
        options = ["--engine", "torch", "--batch-size", "4", "--no-progress", "--report", "report.jsonl"]
        return ["reindex", "--encoder", TINY_CLIP, *options]

    after, two_versions = [import_file("after.parquet")], [import_file("after.parquet"), reindex]
    return {
        "ingest": Scenario("the first ingest", lambda place: [*ingest(place), "--encoder", "pixels"]),
        "prune": Scenario("ingest --prune of a changed source", ingest, [import_file("before.parquet")]),
        "reindex": Scenario("reindex", reindex, after, is_whole=True),
        # Each server flushes a thousand rows or more, which it does six times a minute at most.
        "import": Scenario(
            "import", lambda place: ["import", str(folder / ("after.parquet" if place.is_server else "many.parquet"))]
        ),
        "sources --rename": Scenario(
            "sources --rename",
            lambda _: ["sources", "--rename", "shop", "renamed"],
            after,
            keeps_images=True,
            statuses=(0, 2),
        ),
        "move": Scenario(
            "ingest --move-source",
            lambda place: [*ingest(place), "--source-name", "moved", "--move-source", "shop"],
            after,
            keeps_images=True,
        ),
        "delete": Scenario("delete", lambda _: ["delete", "--where", "category = c1", "--yes"], after),
        "rollback": Scenario(
            "rollback", lambda place: ["rollback", "--to", place.version(live=False)], two_versions, is_whole=True
        ),
        "drop": Scenario(
            "versions --drop",
            lambda place: ["versions", "--drop", place.version(live=False)],
            two_versions,
            is_whole=True,
            statuses=(0, 2),
        ),
    }


class Places:
    """Makes a place for each try, in the state that a scenario starts from."""

    def __init__(self, folder: Path, server: str | None, scenario: Scenario) -> None:
        self._folder, self._server, self._scenario = folder, server, scenario
        self._numbers = count()
        self._prepared: Path | None = None

    def make(self) -> Place:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(parents=True)
        if self._server is not None:
            return self._set_up(Place(folder, self._server, f"kill_{id(self)}_{folder.name}"))
        place = Place(folder, str(folder / "shop.db"), "products")
        if self._prepared is None:
            self._set_up(place)
            self._prepared = self._folder / "prepared.db"
            if self._scenario.setup:
                shutil.copytree(place.uri, self._prepared)
        elif self._scenario.setup:
            shutil.copytree(self._prepared, place.uri)
        return place

    def _set_up(self, place: Place) -> Place:
        for command in self._scenario.setup:
            place.run(*command(place))
        (place.folder / "report.jsonl").unlink(missing_ok=True)
        return place
