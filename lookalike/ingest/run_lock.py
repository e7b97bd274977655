"""One run at a time for the rows of one source, and a way to end it that loses nothing."""

import hashlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lookalike.schema.errors import AlreadyRunning
from lookalike.schema.settings import is_lite


@contextmanager
def run_lock(uri: str, collection: str, source: str) -> Iterator[None]:
    """Hold a lock that other runs on this machine see; it goes with the process, however that ends.

    Raises Busy while another run holds it. Runs on other machines are not seen: their upserts do no harm, but a
    `--prune` goes by the list of its own run.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with os.fdopen(_open(_lock_file(uri, collection, source)), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"another run, process {lock.read() or 'unknown'}, is bringing {source!r} into {collection!r} "
                f"at {uri}; let it end, or end it: what it has stored is kept"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _lock_file(uri: str, collection: str, source: str) -> Path:
    where = str(Path(uri).resolve()) if is_lite(uri) else uri.rstrip("/")
    name = hashlib.blake2b("\0".join((where, collection, source)).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"lookalike-{os.getuid()}-{name}.lock"


def _open(path: Path) -> int:
    """Open a file that only its owner writes, and no link that somebody else has put there."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AlreadyRunning(
            f"the lock {str(path)!r} cannot be made ({error.strerror}); remove it, or set TMPDIR"
        ) from error


class Shutdown:
    """Turns Ctrl-C and SIGTERM into an end between two batches; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = 0
        """The signal that has asked for the end."""
        self.event = threading.Event()
        """Set once the end was asked for."""

    def checked(self, show: Callable[[int], object]) -> Callable[[int], None]:
        """Make `show` raise KeyboardInterrupt once the end was asked for."""

        def show_and_check(done: int) -> None:
            show(done)
            if self.asked:
                raise KeyboardInterrupt

        return show_and_check

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until the end is asked for."""
        self.event.wait(seconds)

    def __enter__(self) -> "Shutdown":
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number
        self.event.set()
