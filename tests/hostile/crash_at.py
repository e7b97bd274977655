"""Run the command `lookalike` in a process of its own, and do something to it at a named point: kill it, mostly.

A point is before or after the n-th event of a name. Events are the calls of Milvus that write (`upsert`,
`alter_alias`, …), the lines of the report (`report new`, …), and `rename`, when a finished file gets its name. `event`
is an event of any name. `list` is an image that the source has listed; it is no `event`.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from command import process_environment
from serving import until

WRITES = frozenset(
    {
        *("upsert", "delete", "flush", "create_collection", "create_index", "load_collection", "create_alias"),
        *("alter_alias", "alter_collection_properties", "drop_collection", "drop_alias", "rename_collection"),
    }
)
TIMEOUT = 120

# Processes are forked from one that has imported what takes seconds, and has no threads yet.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        *("lookalike.ingest.build_job", "lookalike.ingest.job", "lookalike.ingest.admin.reindex"),
        *("lookalike.ingest.admin.parquet", "lookalike.schema.milvus.versions", "lookalike.encode.load_engine"),
        *("milvus_lite.server_manager", "milvus_lite.adapter.grpc.servicer", "lookalike.encode.models.hub", "pytest"),
        *("transformers.models.clip.modeling_clip", "transformers.models.clip.image_processing_pil_clip"),
        *("transformers.models.clip.tokenization_clip", "transformers.processing_utils"),
    ]
)

Action = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a run: before or after the `number`-th event of a name."""

    moment: str
    event: str
    number: int

    def __str__(self) -> str:
        return f"{self.moment} {self.event} {self.number}"


NEVER = Point("before", "nothing", 1)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: its exit status (-9 when it was killed), its events in order, and what it printed."""

    status: int
    events: Sequence[str]
    output: str


class Running:
    """A command that runs in a process of its own until it comes to a point, where it does `action`."""

    def __init__(self, arguments: Sequence[object], folder: Path, point: Point = NEVER, action: Action = kill) -> None:
        self._log, self._output = folder / "events", folder / "output"
        for file in (self._log, self._output):
            file.unlink(missing_ok=True)
        self._process = _PROCESSES.Process(target=partial(_run, [*map(str, arguments)], folder, point, action))
        self._process.start()
        self.pid = self._process.pid or 0

    def wait_until_paused(self) -> None:
        """Wait until the process has stopped at its point; see `pause`."""
        until(lambda: _state(self.pid) in "TZ", TIMEOUT)
        assert _state(self.pid) == "T", f"it ended before its point: {self._output.read_text()}"

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> Ended:
        """Wait for the end. Raises AssertionError after two minutes."""
        self._process.join(TIMEOUT)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"it had not ended after {TIMEOUT} s: {self._output.read_text()}")
        events = self._log.read_text().splitlines() if self._log.exists() else []
        return Ended(self._process.exitcode, events, self._output.read_text(errors="replace"))


def pause() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def run_until(arguments: Sequence[object], folder: Path, point: Point = NEVER, action: Action = kill) -> Ended:
    """Run a command in `folder` until a point is reached, and do `action` there; by default kill the process."""
    return Running(arguments, folder, point, action).wait()


def _state(pid: int) -> str:
    """Return the state of a process: T when it is stopped, Z when it has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def choose_points(events: Sequence[str], *, fewer: bool = False) -> list[Point]:
    """Choose the points to stop at: before and after each name's first, middle and last event.

    `fewer` leaves out the middle ones, and those before a line of the report: they are after a write.
    """
    points = []
    for event, count in Counter(events).items():
        numbers = {1, count} if fewer else {1, (count + 1) // 2, count}
        moments = ["after"] if fewer and event.startswith("report") else ["before", "after"]
        points += [Point(moment, event, number) for number in sorted(numbers) for moment in moments]
    return points


def _run(arguments: list[str], folder: Path, point: Point, action: Action) -> None:
    """Run the command in this process, which is a new one."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(process_environment())
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from lookalike.cli import main

    _watch(_Taps(folder / "events", point, action))
    sys.argv = ["lookalike", *arguments]
    main(arguments, prog_name="lookalike")


class _Taps:
    """Counts events by name, from any thread, and acts at the point."""

    def __init__(self, log: Path, point: Point, action: Action) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._point, self._action = point, action
        self._counts: Counter[str] = Counter()
        self._listed = 0
        self._lock = threading.Lock()

    @contextmanager
    def event(self, name: str) -> Iterator[None]:
        with self._lock:
            self._counts[name] += 1
            counts = {name: self._counts[name], "event": self._counts.total()}
            os.write(self._log, f"{name}\n".encode())
        self._reach("before", counts)
        try:
            yield
        finally:  # after a call that Milvus refused, too
            self._reach("after", counts)

    def count_listed(self) -> None:
        self._listed += 1
        self._reach("after", {"list": self._listed})

    def _reach(self, moment: str, counts: Mapping[str, int]) -> None:
        if self._point.moment == moment and counts.get(self._point.event) == self._point.number:
            self._action()


def _watch(taps: _Taps) -> None:
    """Let every event pass through the taps. Nothing else of the run changes."""
    from lookalike.ingest.reports.report import Report
    from lookalike.ingest.sources.folder import FolderSource
    from lookalike.schema.milvus.connection import Connection

    call, write, replace, images = Connection.call, Report._write, Path.replace, FolderSource.images

    def tapped_call(self: Connection, method: str, *arguments: Any, **options: Any) -> Any:
        if method not in WRITES:
            return call(self, method, *arguments, **options)
        with taps.event(method):
            return call(self, method, *arguments, **options)

    def tapped_write(self: Report, event: str, **details: Any) -> None:
        with taps.event(f"report {event}"):
            write(self, event, **details)

    def tapped_replace(self: Path, target: Any) -> Path:
        if self.suffix != ".unfinished":
            return replace(self, target)
        with taps.event("rename"):
            return replace(self, target)

    Connection.call = tapped_call  # type: ignore[method-assign]
    Report._write = tapped_write  # type: ignore[method-assign]

    def tapped_images(self: FolderSource) -> Iterator[Any]:
        for item in images(self):
            taps.count_listed()
            yield item

    Path.replace = tapped_replace  # type: ignore[method-assign, assignment]
    FolderSource.images = tapped_images  # type: ignore[method-assign]
