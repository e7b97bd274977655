"""One process of the stack: started, watched, started again when it dies, ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from lookalike.schema.errors import ProcessFailed
from lookalike.schema.output import printable

_MOST_DEATHS = 5
_STEADY_SECONDS = 60.0
_LAST_LINES = 12
_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What is run, and how it is told that it is up, what it says, and that it should end.

    `within` is how many seconds it may take until it `answers`, `end_within` until it has ended; the service takes 30
    to finish what it has begun. `shown` makes a line of its log one for the terminal,
    or None. After the exit status `hopeless` it is not tried again.
    """

    name: str
    command: Sequence[str]
    answers: Callable[[], bool] = lambda: True
    within: float = float("inf")
    shown: Callable[[str], str | None] = lambda line: line
    end: signal.Signals = signal.SIGTERM
    end_within: float = 40.0
    hopeless: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    greeting: str = ""


class Process:
    """Runs a plan. Its output goes to `log`; `lock` is a file descriptor that it holds for as long as it lives.

    It dies: it is started again after 1, 2, 4, … seconds. It dies five times, each time within a minute: ProcessFailed.
    """

    def __init__(self, plan: ProcessSpec, log: Path, lock: int) -> None:
        self.plan = plan
        self.up = False
        self._log, self._lock = log, lock
        self._running: subprocess.Popen[bytes] | None = None
        self._deaths, self._due, self._started = 0, 0.0, 0.0
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        log.touch()
        self._said = log.open("rb")
        self._last = ""

    def look(self, *, may_start: bool) -> None:
        """Start it when it is time; notice that it is up, or dead; pass on what it has said."""
        self._pass_on()
        now = time.monotonic()
        if self._running is None:
            if may_start and now >= self._due:
                self._start(now)
        elif self._running.poll() is not None:
            self._died(self._running.returncode, now)
        elif not self.up:
            self._look_whether_up(now)

    def end(self) -> None:
        """Ask it to end, wait for that, and kill it if it takes too long: what Milvus has acknowledged is kept."""
        if self._running is not None:
            self._running.send_signal(self.plan.end)
            try:
                self._running.wait(self.plan.end_within)
            except subprocess.TimeoutExpired:
                self._tell(f"has not ended after {self.plan.end_within:.0f} s and is killed")
                self.kill()
        self._pass_on()

    def kill(self) -> None:
        """End it at once."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def _start(self, now: float) -> None:
        self._started = now
        with self._log.open("ab") as log:
            # A group of its own: Ctrl-C is for us, who end one after the other.
            self._running = subprocess.Popen(  # noqa: S603  the plans are ours
                self.plan.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.plan.environment},
                pass_fds=(self._lock,),
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform.startswith("linux") else None,
            )

    def _look_whether_up(self, now: float) -> None:
        if self.plan.answers():
            self.up = True
            self._pass_on()
            if self.plan.greeting:
                self._tell(self.plan.greeting)
        elif now > self._started + self.plan.within:
            raise ProcessFailed(self._told(f"has not answered within {self.plan.within:.0f} s"))

    def _died(self, status: int, now: float) -> None:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"has ended with status {status}"
        self._running, self.up = None, False
        self._deaths = 1 if now > self._started + _STEADY_SECONDS else self._deaths + 1
        self._pass_on()
        if status == self.plan.hopeless:
            raise ProcessFailed(self._told(how))
        if self._deaths == _MOST_DEATHS:
            raise ProcessFailed(self._told(f"{how}, for the {_MOST_DEATHS}th time in a row"))
        pause = 2.0 ** (self._deaths - 1)
        self._due = now + pause
        self._tell(f"{how}; it is started again in {pause:.0f} s")

    def _told(self, what: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        last = "\n".join(f"  {printable(line[:300])}" for line in lines)
        return f"{self.plan.name} {what}, so the stack has ended. {self._log} ends with:\n{last}"

    def _pass_on(self) -> None:
        """Show the lines that it has written since, as far as they are for the terminal; each once in a row."""
        while line := self._said.readline():
            if not line.endswith(b"\n"):
                self._said.seek(-len(line), os.SEEK_CUR)
                return
            shown = self.plan.shown(line.decode(errors="replace").rstrip())
            if shown and shown != self._last:
                self._last = shown
                self._tell(shown)

    def _tell(self, what: str) -> None:
        click.echo(f"{self.plan.name:8} {printable(what)}", err=True)


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent was killed. Safe: the parent has a single thread."""
    import ctypes

    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
