"""Fixtures without mocks: Milvus Lite, a Milvus server, the bundled encoder and a drawn catalogue."""

import importlib.util
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from milvus_server import milvus_server

from lookalike.encode.encoder import Encoder
from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.registry import load_encoder
from lookalike.ingest.job import ingest_images
from lookalike.ingest.pipeline.existing_rows import RowScope
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.pipeline.load import ReadChanged
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Rejection, Report
from lookalike.ingest.sample import draw_catalogue
from lookalike.ingest.sources.files import image_reader
from lookalike.schema.collection import Fingerprint
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import FileState, ImageRow, Metadata, ProductImage, Vector

DIM = 8
PLAIN = Fingerprint("test", "none", DIM, "none", "none")

# No deadlines: how fast Milvus responds varies. The same examples on every run.
settings.register_profile(
    "real", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("real")

NewStore = Callable[..., Store]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]
_numbers = itertools.count()
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")


HAS_SERVER = importlib.util.find_spec("milvus") is not None
_shared = ExitStack()
_address: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Keep the measurements of engines between test runs, apart from the user's own cache."""
    os.environ["XDG_CACHE_HOME"] = str(config.rootpath / ".pytest_cache")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With several workers (pytest -n 2), start one server for all of them, before the first worker."""
    if HAS_SERVER and not _address:
        folder = _shared.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        _address.append(_shared.enter_context(milvus_server(Path(folder))))
    node.workerinput["server"] = _address[0] if _address else ""


def pytest_unconfigure() -> None:
    """Stop that server."""
    _shared.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print why tests were skipped, one line for each reason."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not run: {count} tests: {reason.removeprefix('Skipped: ')}")
    if config.option.markexpr == "not slow and not hostile":
        terminalreporter.write_line("not run: the slow tests: make test-all; the hostile suite: make test-hostile")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus 2.3.5 that is started for these tests."""
    if not HAS_SERVER:
        pytest.skip("no Milvus server: the wheel milvus==2.3.5 does not exist for this machine")
    if hasattr(request.config, "workerinput"):
        yield request.config.workerinput["server"]
        return
    with milvus_server(tmp_path_factory.mktemp("milvus")) as address:
        yield address


@pytest.fixture(scope="session", params=["lite", "server"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Milvus Lite and a server, one after the other."""
    if request.param == "server":
        return str(request.getfixturevalue("server"))
    return str(tmp_path_factory.mktemp("lite") / "test.db")


@pytest.fixture(scope="module")
def new_store(uri: str) -> Iterator[NewStore]:
    """Create a collection for each call; all are closed after the module."""
    opened: list[Store] = []

    def make(fingerprint: Fingerprint = PLAIN) -> Store:
        opened.append(Store.create(uri, fingerprint, collection=f"t{_worker}{next(_numbers)}"))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Fill a folder once for all workers of this test run: the first caller fills it, the others wait."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base

    def make_once(name: str, fill: Callable[[Path], object]) -> Path:
        made, unfinished = shared / name, shared / f"{name}.unfinished"
        with FileLock(shared / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(made)
        return made

    return make_once


@pytest.fixture(scope="session")
def encoder(once: MakeOnce) -> Encoder:
    """The default encoder on the faster engine; the measurement is kept between test runs."""
    loaded: list[Encoder] = []
    once("encoder", lambda _: loaded.append(load_encoder(engine="auto")))
    return loaded[0] if loaded else load_encoder(engine="auto")


@pytest.fixture(scope="session")
def catalogue(once: MakeOnce) -> Path:
    """The sample catalogue. All tests share it: only read it."""
    return once("sample", draw_catalogue)


def unit(*values: float) -> Vector:
    """A unit vector of DIM numbers; those that are missing are zero."""
    vector = np.zeros(DIM, dtype=np.float32)
    vector[: len(values)] = values
    normal: Vector = vector / np.linalg.norm(vector)
    return normal


def bring(
    images: Iterable[ProductImage | Rejection],
    encoder: Encoder,
    store: Store,
    report: Report | None = None,
    batch_size: int = 8,
    read: ReadChanged | None = None,
) -> Report:
    """Ingest as the command does; return the report."""
    report, items = report or Report(), list(images)
    source = next((item.source for item in items if isinstance(item, ProductImage)), "test")
    engine = LazyEngine(lambda: Engine(encoder, batch_size, parallel_batches=2))
    context = PipelineContext(engine, PipelineLimits(workers=2), read or image_reader().read_changed)
    ingest_images(iter(items), RowScope(source), store, report, context)
    return report


def a_row(
    reference: str, product_id: str = "p", vector: Vector | None = None, metadata: Metadata | None = None
) -> ImageRow:
    """A row with the given values, and any others."""
    image = ProductImage.named("test", product_id, reference, f"/photos/{reference}", metadata or {})
    return ImageRow.of(image, FileState("hash", 1, 2), unit(1) if vector is None else vector)
