"""Where the time of a run goes: spans of its stages, as a table and as a trace that Perfetto opens."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lookalike.schema.errors import BadSettings

STAGES = ("read", "decode", "resize", "wait", "forward", "upsert", "flush")
"""In the order in which an image meets them; `wait` is for the network to be free."""


@dataclass(slots=True)
class Stage:
    """What was spent on a stage: in all, over all threads, and for how long at least one thread was at it."""

    images: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    _active: int = 0
    _since: float = 0.0

    def begin(self, now: float) -> None:
        """A thread begins."""
        if not self._active:
            self._since = now
        self._active += 1

    def end(self, started: float, now: float, images: int) -> None:
        """A thread has done some images."""
        self.images += images
        self.seconds += now - started
        self._active -= 1
        if not self._active:
            self.busy += now - self._since


class Profile:
    """Measures spans of stages, on any thread; with a file, each is written there as it ends.

    The file is in the Trace Event Format, which ui.perfetto.dev and chrome://tracing open. Raises BadSettings where it
    cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.stages = {name: Stage() for name in STAGES}
        self._lock = threading.Lock()
        self._threads: dict[int, int] = {}
        self._began = time.perf_counter()
        try:
            self._file = path.open("w", encoding="utf-8")
            self._broken: OSError | None = None
        except OSError as error:
            raise BadSettings(f"--profile {str(path)!r} cannot be written: {error.strerror}") from error
        self._file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
        self._write({"name": "process_name", "ph": "M", "args": {"name": "lookalike ingest"}})

    @property
    def seconds(self) -> float:
        """How long it is since it began."""
        return time.perf_counter() - self._began

    @contextmanager
    def span(self, stage: str, images: int = 1) -> Iterator[None]:
        """Measure what is done within it."""
        measured, started = self.stages[stage], time.perf_counter()
        with self._lock:
            measured.begin(started)
        try:
            yield
        finally:
            ended = time.perf_counter()
            with self._lock:
                measured.end(started, ended, images)
                thread = self._thread()
                timed = {"ts": round((started - self._began) * 1e6), "dur": round((ended - started) * 1e6)}
                self._write({"name": stage, "ph": "X", "tid": thread, **timed, "args": {"images": images}})

    def _thread(self) -> int:
        """A small number for this thread, in the order in which they come."""
        ident = threading.get_ident()
        if ident not in self._threads:
            self._threads[ident] = len(self._threads) + 1
            name = {"name": threading.current_thread().name}
            self._write({"name": "thread_name", "ph": "M", "tid": self._threads[ident], "args": name})
        return self._threads[ident]

    def _write(self, event: dict[str, object]) -> None:
        """Write an event; where that fails, the run goes on without, and it is said at its end."""
        if self._broken is None:
            try:
                self._file.write(json.dumps({"pid": os.getpid(), "tid": 0, **event}) + ",\n")
            except OSError as error:
                self._broken = error

    def __enter__(self) -> "Profile":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        # The last one has no comma after it.
        end = json.dumps({"name": "end", "ph": "I", "ts": round(self.seconds * 1e6), "pid": os.getpid()})
        try:
            with self._file:
                self._file.write(f"{end}\n]}}\n")
        except OSError as broken:
            self._broken = self._broken or broken
        if self._broken is not None and error is None:
            reason = self._broken.strerror
            raise BadSettings(f"the run is done, but --profile {self._file.name!r} not written to its end ({reason})")


def timed(profile: Profile | None, stage: str, images: int = 1) -> AbstractContextManager[None]:
    """Measure a span where a profile is wanted."""
    return nullcontext() if profile is None else profile.span(stage, images)
