"""Count the images of a run by what happened to them, and write each change and rejection as a line of JSON."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

from lookalike.ingest.pipeline.diff import Change, ExistingImage
from lookalike.ingest.reports.column_tally import ColumnTally
from lookalike.ingest.sources.files import is_remote
from lookalike.schema.errors import BadImage, BadSettings
from lookalike.schema.product import ImageRow, ProductImage

_MAX_FIRST_REJECTIONS = 10
_PROGRESS_INTERVAL = 100
"""Unchanged images between two calls of `on_progress`: they are too many to report each."""

_EVENTS = {Change.NEW: "new", Change.CONTENT: "changed", Change.METADATA: "metadata"}
"""The event of each change that the file lists."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image, or a row of a manifest, that cannot be used, and why.

    `image` is where it is. `image_id` is its key, where that is known: an existing row with that key is not pruned.
    `incomplete` means that images may be missing without being known, as with a folder or a line that cannot be read.
    `unreadable` means that the image itself is missing or broken.
    """

    image: str
    reason: str
    image_id: str | None = None
    incomplete: bool = False
    unreadable: bool = False

    @classmethod
    def of(cls, image: ProductImage, error: BadImage) -> "Rejection":
        """Reject an image that cannot be read or decoded; a remote one may only be out of reach for now."""
        return cls(image.image, str(error), image.image_id, unreadable=not is_remote(image.image))


class ReadyRow(NamedTuple):
    """A row that is ready to be written, and why it is."""

    change: Change
    row: ImageRow


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did, in images.

    Every image of the source is one of `new`, `changed`, `metadata` (only that changed), `unchanged` or `rejected`.
    `stored` counts the rows that were written: those of new, changed and metadata, and those of unchanged images whose
    file was written again. `embedded` counts forward passes. `removed` counts rows whose image the source no longer
    has. `images_per_second` counts all images of the source that are done, unchanged ones too. `columns` has the types
    of each metadata column, such as "float" or "list or text". `passed_over` counts the other files of a folder, which
    are no images, by their suffix. `warnings` say what is likely to be a mistake in the source, and what to do.
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
    columns: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Report:
    """Counts what happened to each image, from several threads, and writes it to a JSONL file as it happens.

    `on_progress` is called with the number of images of the source that are done. With `append`, the lines of an
    earlier run stay in the file. Every method raises BadSettings when the file cannot be written.
    """

    def __init__(
        self,
        path: Path | None = None,
        on_progress: Callable[[int], object] = lambda done: None,
        *,
        append: bool = False,
    ) -> None:
        self.first_rejections: list[Rejection] = []
        """The first ten, for the terminal; the file has them all."""
        self.warnings: list[str] = []
        self.passed_over: dict[str, int] = {}
        """Files of the source that are no images, by their suffix."""
        self.columns = ColumnTally()
        """Counts the columns of all images of the source."""
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
        """Images of the source that are done."""
        return self.stored + self.rejected + self._counts[Change.UNCHANGED]

    def start(self) -> None:
        """Start the clock and, unless appending, empty the file: until then the lines of the last run stay."""
        self._started = time.monotonic()
        if self._file is not None and not self._append:
            with _raise_bad_settings(self._path):
                self._file.truncate(0)

    def reject(self, rejection: Rejection, *, row_stays: bool = False) -> None:
        """Count an image that cannot be used; `row_stays` means that the collection still has a row for it."""
        with self._lock:
            self._counts["rejected"] += 1
            if len(self.first_rejections) < _MAX_FIRST_REJECTIONS:
                self.first_rejections.append(rejection)
            self._write("rejected", image=rejection.image, reason=rejection.reason, kept=row_stays)
            self.on_progress(self.seen)

    def record_stored(self, rows: Iterable[ReadyRow]) -> None:
        """Count rows that Milvus has acknowledged."""
        with self._lock:
            for change, row in rows:
                self.count(change, row)
            self.on_progress(self.seen)

    def count(self, change: Change, image: ProductImage | ImageRow) -> None:
        """Count an image by its change, or by the change that a dry run found. Takes no lock."""
        self._counts[change] += 1
        if change in _EVENTS:
            self._write(_EVENTS[change], product_id=image.product_id, image=image.image)

    def count_unchanged(self) -> None:
        """Count an image whose row needs no change."""
        with self._lock:
            self._counts[Change.UNCHANGED] += 1
            if self._counts[Change.UNCHANGED] % _PROGRESS_INTERVAL == 0:
                self.on_progress(self.seen)

    def count_embedded(self, count: int) -> None:
        """Count forward passes."""
        with self._lock:
            self._counts["embedded"] += count

    def record_removed(self, rows: Iterable[ExistingImage]) -> None:
        """Count rows that were removed, or that would be in a dry run."""
        with self._lock:
            for row in rows:
                self._counts["removed"] += 1
                self._write("removed", product_id=row.product_id, image=row.image)

    def warn(self, text: str) -> None:
        """Write a remark that changes no count."""
        with self._lock:
            self._write("remark", text=text)

    def add_warning(self, text: str) -> None:
        """Add what is likely to be a mistake in the source to the summary, and to the file as a remark."""
        self.warnings.append(text)
        self.warn(text)

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
            columns=self.columns.list_types(),
            passed_over=self.passed_over,
            warnings=tuple(self.warnings),
        )

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with _raise_bad_settings(self._path):
                self._file.close()

    def _write(self, event: str, **details: Any) -> None:
        if self._file is not None:
            with _raise_bad_settings(self._path):
                self._file.write(json.dumps({"event": event, **details}) + "\n")


def _open(path: Path) -> TextIO:
    with _raise_bad_settings(path):
        # Line buffered, so that a killed run leaves what it has written. ASCII: JSON escapes any character of a path.
        return path.open("a", encoding="ascii", buffering=1)


@contextmanager
def _raise_bad_settings(path: Path | None) -> Iterator[None]:
    """Raise errors of writing the report as BadSettings."""
    try:
        yield
    except OSError as error:
        raise BadSettings(f"--report {str(path)!r} cannot be written: {error.strerror}") from error
