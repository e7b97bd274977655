"""One process of the stack: start it, watch it, restart it when it exits, stop it."""

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
from lookalike.schema.output import escape_controls

_MAX_EXITS = 5
_STABLE_SECONDS = 60.0
_LOG_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A command to run, and how to know that it is ready, what to print of its log, and how to stop it.

    `answers` is called until it returns True; the process must get ready within `ready_timeout` seconds.
    `format_line` turns a line of the log into one for the terminal, or into None to hide it.
    `stop_signal` asks the process to stop; it is killed after `stop_timeout` seconds. The default leaves the service
    time to finish its requests, for which it takes up to 30 s.
    `fatal_status` is the exit status after which a restart is pointless.
    """

    name: str
    command: Sequence[str]
    answers: Callable[[], bool] = lambda: True
    ready_timeout: float = float("inf")
    format_line: Callable[[str], str | None] = lambda line: line
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 40.0
    fatal_status: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_message: str = ""


class Process:
    """Runs the command of a ProcessSpec, with its output in `log_file`.

    A process that exits is restarted after 1, 2, 4, … seconds. After five exits in a row, each within a minute of its
    start, `poll` raises ProcessFailed. The child inherits `lock_fd`, so it holds the stack's lock as long as it lives.
    """

    def __init__(self, spec: ProcessSpec, log_file: Path, lock_fd: int) -> None:
        self.spec = spec
        self.is_ready = False
        self._log_file, self._lock_fd = log_file, lock_fd
        self._child: subprocess.Popen[bytes] | None = None
        self._exits, self._restart_at, self._started_at = 0, 0.0, 0.0
        if log_file.exists():
            log_file.replace(log_file.with_suffix(".log.1"))
        log_file.touch()
        self._log = log_file.open("rb")
        self._last_line = ""

    def poll(self, *, may_start: bool) -> None:
        """Print new log lines; then start the process, notice that it is ready, or notice that it has exited.

        Raises ProcessFailed if it does not get ready in time or keeps exiting.
        """
        self._print_new_lines()
        now = time.monotonic()
        if self._child is None:
            if may_start and now >= self._restart_at:
                self._start(now)
        elif self._child.poll() is not None:
            self._handle_exit(self._child.returncode, now)
        elif not self.is_ready:
            self._check_ready(now)

    def stop(self) -> None:
        """Send the stop signal and wait; kill the process after `stop_timeout`. Milvus keeps what it acknowledged."""
        if self._child is not None:
            self._child.send_signal(self.spec.stop_signal)
            try:
                self._child.wait(self.spec.stop_timeout)
            except subprocess.TimeoutExpired:
                self._print(f"did not stop within {self.spec.stop_timeout:.0f} s; killing it")
                self.kill()
        self._print_new_lines()

    def kill(self) -> None:
        """Kill the process and wait for it."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def _start(self, now: float) -> None:
        self._started_at = now
        with self._log_file.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches only the supervisor, which stops the processes one by one.
            self._child = subprocess.Popen(  # noqa: S603  our own commands
                self.spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.spec.environment},
                pass_fds=(self._lock_fd,),
                start_new_session=True,
                preexec_fn=_stop_with_parent if sys.platform.startswith("linux") else None,
            )

    def _check_ready(self, now: float) -> None:
        if self.spec.answers():
            self.is_ready = True
            self._print_new_lines()
            if self.spec.ready_message:
                self._print(self.spec.ready_message)
        elif now > self._started_at + self.spec.ready_timeout:
            raise ProcessFailed(self._describe_failure(f"was not ready within {self.spec.ready_timeout:.0f} s"))

    def _handle_exit(self, status: int, now: float) -> None:
        """Schedule a restart, or raise ProcessFailed if that is pointless."""
        reason = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        self._child, self.is_ready = None, False
        self._exits = 1 if now > self._started_at + _STABLE_SECONDS else self._exits + 1
        self._print_new_lines()
        if status == self.spec.fatal_status:
            raise ProcessFailed(self._describe_failure(reason))
        if self._exits == _MAX_EXITS:
            raise ProcessFailed(self._describe_failure(f"{reason}, for the {_MAX_EXITS}th time in a row"))
        delay = 2.0 ** (self._exits - 1)
        self._restart_at = now + delay
        self._print(f"{reason}; restarting in {delay:.0f} s")

    def _describe_failure(self, reason: str) -> str:
        lines = self._log_file.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        tail = "\n".join(f"  {escape_controls(line[:300])}" for line in lines)
        return f"{self.spec.name} {reason}, so the stack was stopped. {self._log_file} ends with:\n{tail}"

    def _print_new_lines(self) -> None:
        """Print the complete lines that were added to the log, as `format_line` formats them; repeats only once."""
        while line := self._log.readline():
            if not line.endswith(b"\n"):
                self._log.seek(-len(line), os.SEEK_CUR)
                return
            formatted = self.spec.format_line(line.decode(errors="replace").rstrip())
            if formatted and formatted != self._last_line:
                self._last_line = formatted
                self._print(formatted)

    def _print(self, message: str) -> None:
        click.echo(f"{self.spec.name:8} {escape_controls(message)}", err=True)


def _stop_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies.

    Runs between fork and exec, which is safe because the parent has only one thread.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
