"""What became of every picture: counts, and one line for each that was rejected."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from schema.errors import BadSettings

SHOWN = 10
"""How many rejections are kept in memory to be shown; the file has them all."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A picture that is not in the collection, and why."""

    image: str
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did; every picture of the source is either stored or rejected."""

    stored: int
    rejected: int
    seconds: float
    images_per_second: float


class Report:
    """Counts pictures from several threads and writes rejections to a JSONL file as they come.

    `on_progress` is told how many pictures are through, stored or rejected.
    """

    def __init__(self, path: Path | None = None, on_progress: Callable[[int], object] = lambda done: None) -> None:
        self.stored = 0
        self.rejected = 0
        self.first_rejections: list[Rejection] = []
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._path = path
        self._file = None if path is None else _open(path)

    def start(self) -> None:
        """Start the clock: loading a network is not part of the pace of a run."""
        self._started = time.monotonic()

    def reject(self, rejection: Rejection) -> None:
        """Note a picture that cannot be stored."""
        with self._lock:
            self.rejected += 1
            if len(self.first_rejections) < SHOWN:
                self.first_rejections.append(rejection)
            self._write(json.dumps({"event": "rejected", **asdict(rejection)}) + "\n")
            self._on_progress(self.stored + self.rejected)

    def store(self, count: int) -> None:
        """Note pictures that Milvus has acknowledged."""
        with self._lock:
            self.stored += count
            self._on_progress(self.stored + self.rejected)

    def summary(self) -> Summary:
        """Sum up the run so far."""
        seconds = time.monotonic() - self._started
        return Summary(self.stored, self.rejected, round(seconds, 3), round(self.stored / seconds, 2))

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with _disk_errors(self._path):
                self._file.close()

    def _write(self, line: str) -> None:
        if self._file is not None:
            with _disk_errors(self._path):
                self._file.write(line)


def _open(path: Path) -> TextIO:
    with _disk_errors(path):
        # Line by line, so that a killed run leaves what it found. ASCII: JSON escapes whatever a file name may hold.
        return path.open("w", encoding="ascii", buffering=1)


@contextmanager
def _disk_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadSettings(f"--report {str(path)!r} cannot be written: {error.strerror}") from error
