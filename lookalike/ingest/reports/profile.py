"""Where the time of a run goes: what each stage takes, as a table and as a trace that Perfetto opens."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lookalike.schema.errors import BadSettings

STAGES = ("read", "decode", "resize", "wait", "forward", "upsert", "flush")
"""In the order in which an image passes them; `wait` is for the encoder to be free."""


@dataclass(slots=True)
class StageTotals:
    """What a stage took: `seconds` summed over all threads, and `busy`, in which at least one thread was in it."""

    images: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    _active_threads: int = 0
    _busy_since: float = 0.0

    def begin(self, now: float) -> None:
        """Count a thread that enters the stage."""
        if not self._active_threads:
            self._busy_since = now
        self._active_threads += 1

    def end(self, started: float, now: float, images: int) -> None:
        """Count a thread that leaves the stage, and its images."""
        self.images += images
        self.seconds += now - started
        self._active_threads -= 1
        if not self._active_threads:
            self.busy += now - self._busy_since


class Profile:
    """A StageTimer that sums up each stage, and writes each measurement to a file as it ends.

    The file is in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open. Raises BadSettings when it
    cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.stages = {name: StageTotals() for name in STAGES}
        self._lock = threading.Lock()
        self._thread_numbers: dict[int, int] = {}
        self._started = time.perf_counter()
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise BadSettings(f"--profile {str(path)!r} cannot be written: {error.strerror}") from error
        self._write_error: OSError | None = None
        self._file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        self._write({"name": "process_name", "ph": "M", "args": {"name": "lookalike ingest"}})

    @property
    def seconds(self) -> float:
        """The time since the profile was made."""
        return time.perf_counter() - self._started

    @contextmanager
    def measure(self, stage: str, images: int = 1) -> Iterator[None]:
        """Measure what a stage does with so many images, from entering the context to leaving it."""
        totals, started = self.stages[stage], time.perf_counter()
        with self._lock:
            totals.begin(started)
        try:
            yield
        finally:
            ended = time.perf_counter()
            with self._lock:
                totals.end(started, ended, images)
                thread = self._thread_number()
                span = {"ts": round((started - self._started) * 1e6), "dur": round((ended - started) * 1e6)}
                self._write({"name": stage, "ph": "X", "tid": thread, **span, "args": {"images": images}})

    def _thread_number(self) -> int:
        """Return a small number for this thread, and write its name the first time."""
        ident = threading.get_ident()
        if ident not in self._thread_numbers:
            self._thread_numbers[ident] = len(self._thread_numbers) + 1
            name = {"name": threading.current_thread().name}
            self._write({"name": "thread_name", "ph": "M", "tid": self._thread_numbers[ident], "args": name})
        return self._thread_numbers[ident]

    def _write(self, event: dict[str, object]) -> None:
        """Write an event. When that fails, the run goes on without a trace, and its end raises the error."""
        if self._write_error is None:
            try:
                self._file.write(json.dumps({"pid": os.getpid(), "tid": 0, **event}) + ",\n")
            except OSError as error:
                self._write_error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # JSON allows no comma after the last event.
        end = json.dumps({"name": "end", "ph": "I", "ts": round(self.seconds * 1e6), "pid": os.getpid()})
        try:
            with self._file:
                self._file.write(f"{end}\n]}}\n")
        except OSError as write_error:
            self._write_error = self._write_error or write_error
        if self._write_error is not None and error is None:
            reason = self._write_error.strerror
            raise BadSettings(
                f"the run is complete, but --profile {self._file.name!r} was not written to its end ({reason})"
            )
