"""The data folder of a local stack: used by one stack at a time, and by one kind of Milvus for good."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lookalike.schema.errors import AlreadyRunning, BadSettings

MilvusKind = Literal["server", "lite"]


@dataclass(frozen=True, slots=True)
class DataDir:
    """The paths of a stack's data and logs."""

    root: Path

    @property
    def server_data(self) -> Path:
        """The data of a Milvus server, and its binary."""
        return self.root / "milvus"

    @property
    def lite_data(self) -> Path:
        """The data of Milvus Lite."""
        return self.root / "lookalike.db"

    @property
    def uploads(self) -> Path:
        """Images that clients sent to the service."""
        return self.root / "uploads"

    def log_file(self, process: str) -> Path:
        """The log of a process. That of the run before is beside it, with the suffix `.1`."""
        return self.root / "logs" / f"{process}.log"

    def choose_milvus(self, requested: MilvusKind | None) -> MilvusKind:
        """Choose the kind of Milvus: the one whose data is here, else the requested one, else a server if installed.

        Raises BadSettings if the request contradicts the data, or if a server is needed and not installed.
        """
        existing = self._existing_kind()
        if requested and existing and requested != existing:
            raise BadSettings(
                f"--milvus {requested}: {self.root} holds the data of --milvus {existing}; choose another --folder"
            )
        has_server = importlib.util.find_spec("milvus") is not None
        chosen = existing or requested or ("server" if has_server else "lite")
        if chosen == "server" and not has_server:
            raise BadSettings(
                "the Milvus server is not installed: run pip install 'lookalike[server]' on Linux x86-64 or macOS; "
                "elsewhere use --milvus lite with a --folder that holds no server data"
            )
        return chosen

    def _existing_kind(self) -> MilvusKind | None:
        if self.server_data.exists():
            return "server"
        return "lite" if self.lite_data.exists() else None

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Lock the folder; yield the lock's file descriptor, for child processes to inherit.

        Raises BadSettings if the folder cannot be written, AlreadyRunning if another process has the lock.
        """
        # `fcntl.flock`, not the package filelock: children inherit the descriptor, so the folder stays locked while any
        # of them is alive, even after this process was killed. Two Milvus processes must never share the same data.
        # filelock hides its descriptor, and unlocks explicitly at the end, which would unlock it for the children too.
        import fcntl

        try:
            (self.root / "logs").mkdir(parents=True, exist_ok=True)
            lock_fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadSettings(f"--folder {str(self.root)!r} cannot be created or written: {error.strerror}") from error
        with os.fdopen(lock_fd, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyRunning(
                    f"{self.root} is in use by lookalike up, process {file.read() or 'unknown'}, or by a process that "
                    "it started; stop it, or choose another --folder"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield lock_fd
