"""What became of every image: counts that add up, and a line for each that was written, removed or rejected."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

from lookalike.ingest.pipeline.diff import Change, ExistingImage
from lookalike.ingest.sources.files import is_remote
from lookalike.schema.errors import BadImage, BadSettings
from lookalike.schema.product import ImageRow, ProductImage

SHOWN = 10
"""How many rejections are kept in memory to be shown; the file has them all."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image, or a row of a manifest, that cannot be used, and why.

    `image_id` is its key, where it has one: its row, if there is one already, is kept. `incomplete` says that nobody
    knows which images were meant: a folder or a line that could not be read; `unreadable` that the image itself is
    missing or broken.
    """

    image: str
    reason: str
    image_id: str | None = None
    incomplete: bool = False
    unreadable: bool = False

    @classmethod
    def of(cls, image: ProductImage, error: BadImage) -> "Rejection":
        """Reject an image that cannot be read or decoded; one from the web may only be out of reach."""
        return cls(image.image, str(error), image.image_id, unreadable=not is_remote(image.image))


class ReadyRow(NamedTuple):
    """A row that is ready to be written, and why it is."""

    change: Change
    row: ImageRow


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did, in images.

    Every image of the source is one of new, changed, metadata, unchanged or rejected; `stored` are the rows that
    were written: new, changed, metadata, and those unchanged ones whose file was written again. `embedded` counts
    forward passes. `removed` rows were of images that the source has no more.
    """

    stored: int
    rejected: int
    new: int
    changed: int
    metadata: int
    unchanged: int
    removed: int
    embedded: int
    seconds: float
    images_per_second: float


class Report:
    """Counts images from several threads and writes what happened to them to a JSONL file as it happens.

    `on_progress` is told how many images of the source are through.
    """

    def __init__(
        self,
        path: Path | None = None,
        on_progress: Callable[[int], object] = lambda done: None,
        *,
        append: bool = False,
    ) -> None:
        self.first_rejections: list[Rejection] = []
        self._counts: Counter[str] = Counter()
        self.on_progress = on_progress
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._path = path
        self._append = append
        self._file = None if path is None else _open(path)

    @property
    def stored(self) -> int:
        """Rows that Milvus has acknowledged."""
        return sum(self._counts[change] for change in (Change.NEW, Change.CONTENT, Change.METADATA, Change.TOUCHED))

    @property
    def rejected(self) -> int:
        """Images that cannot be used."""
        return self._counts["rejected"]

    @property
    def seen(self) -> int:
        """Images of the source that are through."""
        return self.stored + self.rejected + self._counts[Change.UNCHANGED]

    def start(self) -> None:
        """Start the clock, and the report: what an earlier run has told goes only now."""
        self._started = time.monotonic()
        if self._file is not None and not self._append:
            with _disk_errors(self._path):
                self._file.truncate(0)

    def reject(self, rejection: Rejection, *, kept: bool = False) -> None:
        """Note an image that cannot be used; `kept` says that the collection still has what it was before."""
        with self._lock:
            self._counts["rejected"] += 1
            if len(self.first_rejections) < SHOWN:
                self.first_rejections.append(rejection)
            self._write("rejected", image=rejection.image, reason=rejection.reason, kept=kept)
            self.on_progress(self.seen)

    def store(self, rows: Iterable[ReadyRow]) -> None:
        """Note rows that Milvus has acknowledged."""
        with self._lock:
            for change, row in rows:
                self.count(change, row)
            self.on_progress(self.seen)

    def count(self, change: Change, image: ProductImage | ImageRow) -> None:
        """Note what became of one image, or would."""
        self._counts[change] += 1
        if change in _EVENTS:
            self._write(_EVENTS[change], product_id=image.product_id, image=image.image)

    def keep(self) -> None:
        """Note an image whose row is as it should be."""
        with self._lock:
            self._counts[Change.UNCHANGED] += 1
            if self._counts[Change.UNCHANGED] % 100 == 0:
                self.on_progress(self.seen)

    def remark(self, text: str) -> None:
        """Note what is worth knowing but changes no count."""
        with self._lock:
            self._write("remark", text=text)

    def embed(self, count: int) -> None:
        """Note forward passes."""
        with self._lock:
            self._counts["embedded"] += count

    def remove(self, rows: Iterable[ExistingImage]) -> None:
        """Note rows that are no more in the collection, or would not be."""
        with self._lock:
            for row in rows:
                self._counts["removed"] += 1
                self._write("removed", product_id=row.product_id, image=row.image)

    def summary(self) -> Summary:
        """Sum up the run so far."""
        seconds = time.monotonic() - self._started
        counts = self._counts
        return Summary(
            stored=self.stored,
            rejected=self.rejected,
            new=counts[Change.NEW],
            changed=counts[Change.CONTENT],
            metadata=counts[Change.METADATA],
            unchanged=counts[Change.UNCHANGED] + counts[Change.TOUCHED],
            removed=counts["removed"],
            embedded=counts["embedded"],
            seconds=round(seconds, 3),
            images_per_second=round(self.seen / seconds, 2),
        )

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with _disk_errors(self._path):
                self._file.close()

    def _write(self, event: str, **details: Any) -> None:
        if self._file is not None:
            with _disk_errors(self._path):
                self._file.write(json.dumps({"event": event, **details}) + "\n")


_EVENTS = {Change.NEW: "new", Change.CONTENT: "changed", Change.METADATA: "metadata"}


def _open(path: Path) -> TextIO:
    with _disk_errors(path):
        # Line by line, so that a killed run leaves what it found. ASCII: JSON escapes whatever a file name may hold.
        return path.open("a", encoding="ascii", buffering=1)


@contextmanager
def _disk_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadSettings(f"--report {str(path)!r} cannot be written: {error.strerror}") from error
