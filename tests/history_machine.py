"""Random histories of a catalogue. However it came about, a collection equals a fresh ingest of the same catalogue."""

import shutil
import signal
import tempfile
from itertools import count
from pathlib import Path
from random import Random

from catalogue import LONG_AGO, draw
from command import ROOT, lookalike
from hostile.crash_at import Point, run_until
from hostile.rows import are_same, read_rows
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from lookalike.schema.milvus.store import Store

_ENCODERS = ("pixels", str(ROOT / "tests" / "tiny_clip"))
_STEPS = 8
# Few of each, so that two photos often have the same bytes, the same product, or the name of an earlier one.
_names = st.builds("{}/{}/{}.png".format, st.sampled_from("AB"), st.sampled_from("xyz"), st.integers(0, 2))
_colours = st.integers(0, 3)
_points = st.builds(Point, st.sampled_from(["before", "after"]), st.just("event"), st.integers(1, 12))
_pick = st.randoms(use_true_random=False)


class CatalogueHistory(RuleBasedStateMachine):
    """A folder of photos that changes, and the collection that follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.photos = self.folder / "photos0"
        self.uri = str(self.folder / "shop.db")
        self._clock, self._moves, self._fresh = count(), count(1), count()

    @initialize(names=st.lists(_names, min_size=3, max_size=8, unique=True), colour=_colours)
    def open_the_shop(self, names: list[str], colour: int) -> None:
        for number, name in enumerate(names):
            self._draw(name, colour + number // 2)
        self.ingest()

    @rule(name=_names, colour=_colours)
    def add_or_edit(self, name: str, colour: int) -> None:
        self._draw(name, colour)

    @precondition(lambda self: self._images())
    @rule(name=_names, pick=_pick)
    def rename(self, name: str, pick: Random) -> None:
        target = self.photos / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pick.choice(self._images()).rename(target)

    @rule(category=st.sampled_from("AB"), product=st.sampled_from("xyz"))
    def move_a_folder(self, category: str, product: str) -> None:
        old, new = self.photos / category / product, self.photos / "C" / product
        if old.exists() and not new.exists():
            new.parent.mkdir(exist_ok=True)
            old.rename(new)

    @rule()
    def move_the_source(self) -> None:
        self.photos = self.photos.rename(self.folder / f"photos{next(self._moves)}")

    @precondition(lambda self: self._images())
    @rule(pick=_pick)
    def remove(self, pick: Random) -> None:
        pick.choice(self._images()).unlink()

    @precondition(lambda self: self._images())
    @rule(pick=_pick, price=st.integers(1, 3))
    def change_metadata(self, pick: Random, price: int) -> None:
        pick.choice(self._images()).with_suffix(".json").write_text(f'{{"price": {price}}}')

    @rule(encoder=st.sampled_from(_ENCODERS))
    def switch_encoder(self, encoder: str) -> None:
        self._run(*self._reindex(encoder))

    @rule()
    def roll_back(self) -> None:
        self._run("rollback", statuses=(0, 2))  # 2: there was only one version

    @rule(point=_points, names=st.lists(_names, min_size=3, max_size=3, unique=True), colour=_colours)
    def kill_an_ingest(self, point: Point, names: list[str], colour: int) -> None:
        for number, name in enumerate(names):
            self._draw(name, colour + number)
        self._run_until(point, *self._ingest(self.photos, self.uri))

    @rule(point=_points)
    def kill_a_reindex(self, point: Point) -> None:
        [encoder] = {*_ENCODERS} - {self._live_encoder()}
        self._run_until(point, *self._reindex(encoder))

    @rule()
    def ingest(self) -> None:
        """After it, the collection equals a fresh one."""
        self._run(*self._ingest(self.photos, self.uri))
        fresh = str(self.folder / f"fresh{next(self._fresh)}.db")
        self._run(*self._ingest(self.photos, fresh, self._live_encoder()))
        assert are_same(read_rows(self.uri), read_rows(fresh)), "the collection differs from a fresh ingest"
        shutil.rmtree(fresh)

    def teardown(self) -> None:
        """Every history ends with an ingest."""
        try:
            if self.photos.exists() and Path(self.uri).exists():
                self.ingest()
        finally:
            shutil.rmtree(self.folder)

    def _images(self) -> list[Path]:
        return sorted(self.photos.rglob("*.png"))

    def _draw(self, name: str, colour: int) -> None:
        draw(self.photos / name, colour, at=LONG_AGO + next(self._clock))

    def _live_encoder(self) -> str:
        with Store.open(self.uri) as store:
            return store.fingerprint.encoder

    def _ingest(self, photos: Path, uri: str, encoder: str = "pixels") -> list[str]:
        encoder = self._live_encoder() if Path(uri).exists() else encoder
        options = ["--source-name", "shop", "--prune", "--max-removals", "100%", "--batch-size", "2", "--no-progress"]
        layout = ["--layout", "{category}/{product_id}/{image}"]
        return ["ingest", str(photos), *layout, *options, "--encoder", encoder, "--engine", "torch", "--uri", uri]

    def _reindex(self, encoder: str) -> list[str]:
        # What was removed since the last ingest cannot be read any more.
        options = ["--max-rejected", "100%", "--engine", "torch", "--batch-size", "2", "--no-progress"]
        return ["reindex", "--encoder", encoder, *options, "--uri", self.uri]

    def _run(self, *arguments: str, statuses: tuple[int, ...] = (0,)) -> None:
        address = () if "--uri" in arguments else ("--uri", self.uri)
        done = lookalike(*arguments, *address, cwd=self.folder)
        assert done.returncode in statuses, f"{arguments}: {done.stderr.decode()}"

    def _run_until(self, point: Point, *arguments: str) -> None:
        ended = run_until(arguments, self.folder, point)
        # 0: it ended before it came to that point.
        assert ended.status in (0, -signal.SIGKILL), f"{arguments}: {ended.output}"


def try_histories(number: int) -> None:
    """Try so many histories, the same ones each time."""
    run_state_machine_as_test(
        CatalogueHistory,
        settings=settings(
            max_examples=number,
            stateful_step_count=_STEPS,
            derandomize=True,
            deadline=None,
            # Each example takes seconds, so that a shorter one would be searched for minutes.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
