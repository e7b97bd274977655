"""One run at a time for the rows of one source."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lookalike.schema.errors import AlreadyRunning, BadSettings
from lookalike.schema.process_record import ProcessRecord
from lookalike.schema.settings import is_lite


@contextmanager
def run_lock(uri: str, collection: str, source: str) -> Iterator[None]:
    """Hold a lock that other runs on this machine see. The system releases it when the process ends, however it ends.

    Runs on other machines are not seen: their upserts do no harm, but `--prune` deletes by what its own run has listed.
    Raises AlreadyRunning while another run holds the lock, and BadSettings when the lock file cannot be created.
    """
    lock_file = _lock_file(uri, collection, source)
    # A file of its own: opening a lock file may truncate it.
    record = lock_file.with_suffix(".json")
    lock = FileLock(lock_file, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout as error:
        raise AlreadyRunning(
            f"another run of {source!r} into {collection!r} at {uri} has not ended: "
            f"{ProcessRecord.read(record) or 'an unknown process'}; wait for it, or stop it: what it has stored stays"
        ) from error
    except OSError as error:
        raise _cannot_lock(lock_file, error.strerror) from error
    try:
        ProcessRecord.of_this_process().write(record)
        yield
    finally:
        lock.release()


def _lock_file(uri: str, collection: str, source: str) -> Path:
    address = str(Path(uri).resolve()) if is_lite(uri) else uri.rstrip("/")
    name = hashlib.blake2b("\0".join((address, collection, source)).encode(), digest_size=8).hexdigest()
    return _private_directory() / f"{name}.lock"


def _private_directory() -> Path:
    """Return a folder that only this user can write to; make it when it is missing.

    The folder for temporary files is shared by all users: another one could put a link there in the place of our file.
    """
    if os.name != "posix":  # such a folder belongs to its user already
        return Path(tempfile.gettempdir())
    directory = Path(tempfile.gettempdir()) / f"lookalike-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise _cannot_lock(directory, error.strerror) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise _cannot_lock(directory, "it is not a folder of this user alone")
    return directory


def _cannot_lock(path: Path, reason: str | None) -> BadSettings:
    return BadSettings(f"the lock of this run cannot be created at {str(path)!r} ({reason}); remove it, or set TMPDIR")
