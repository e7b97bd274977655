"""Which process has a Milvus Lite store open. Milvus Lite serves one process at a time, by a lock on its file LOCK."""

import os
from pathlib import Path

from lookalike.schema.process_record import ProcessRecord

_LOCK = "LOCK"
_RECORD = "lookalike-process.json"
_LOCKS_OF_LINUX = Path("/proc/locks")

_SEVERAL = "A Milvus server takes several processes at once: set MILVUS_URI"
_WAIT = f"Wait until it ends. {_SEVERAL}"


def record_holder(uri: str, *, service: str = "", milvus: str = "") -> None:
    """Write beside a store's data that this process has it open, and at which URL it can be reached meanwhile."""
    this = ProcessRecord.of_this_process()
    ProcessRecord(this.pid, this.command, this.since, service, milvus).write(Path(uri) / _RECORD)


def forget_holder(uri: str) -> None:
    """Remove the record of this process, before it closes the store."""
    file = Path(uri) / _RECORD
    record = ProcessRecord.read(file)
    if record is not None and record.pid == os.getpid():
        file.unlink(missing_ok=True)


def is_locked_by_another(uri: str) -> bool:
    """Return whether another process has a Milvus Lite folder open; False where there is no flock (Windows)."""
    lock = Path(uri) / _LOCK
    try:
        import fcntl
    except ImportError:
        return False
    if not lock.exists():
        return False
    # LOCK belongs to Milvus Lite, which locks it with flock. A FileLock would open it for writing and create it where
    # it is missing; this probe only reads, and also works in a folder that it may not write to.
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def describe_holder(uri: str) -> str:
    """Say which process has a store open and what works meanwhile; call it when one does."""
    record, pid = ProcessRecord.read(Path(uri) / _RECORD), _find_lock_owner(Path(uri) / _LOCK)
    if record is not None and pid in (record.pid, None) and _is_alive(record.pid):
        return f"{uri} is open in {record}. {_advise(record)}"
    who = "another process" if pid is None else f"process {pid}{_read_command(pid)}"
    return f"{uri} is open in {who}. {_WAIT}"


def _advise(holder: ProcessRecord) -> str:
    if holder.milvus:
        return f"Meanwhile, use --uri {holder.milvus}, which is the same store"
    if holder.service:
        return (
            f"Meanwhile, search through it: {holder.service} in a browser, or "
            f"lookalike.connect(service={holder.service!r}) in Python. To write, end it first. {_SEVERAL}"
        )
    return _WAIT


def _find_lock_owner(lock: Path) -> int | None:
    """Return the process that has locked a file; None where the system does not tell, as for another container."""
    try:
        status, lines = lock.stat(), _LOCKS_OF_LINUX.read_text().splitlines()
    except OSError:
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    # Such as `7: FLOCK  ADVISORY  WRITE 4242 fe:01:1838 0 EOF`; a process that waits has -> after the number.
    owners = [int(line.split()[4]) for line in lines if f" {file} " in line and "->" not in line]
    return owners[0] if owners and owners[0] > 0 else None


def _read_command(pid: int) -> str:
    """Return the program of a process, in parentheses; "" when the system does not tell."""
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
