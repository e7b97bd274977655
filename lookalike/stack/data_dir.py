"""The folder of a local stack: one stack at a time has it, and it stays with the Milvus that it began with."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lookalike.schema.errors import AlreadyRunning, BadSettings

SERVER, LITE = "server", "lite"


@dataclass(frozen=True, slots=True)
class DataDir:
    """Where everything of a stack is."""

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
        """Images that were sent to the service."""
        return self.root / "uploads"

    def log(self, name: str) -> Path:
        """The log of a process; `.1` behind it is that of the run before."""
        return self.root / "logs" / f"{name}.log"

    def choose(self, wanted: str | None) -> str:
        """Decide between a Milvus server and Milvus Lite's: what is here already, else the server where there is one.

        Raises BadSettings where that cannot be.
        """
        here = SERVER if self.server_data.exists() else LITE if self.lite_data.exists() else None
        if wanted and here and wanted != here:
            raise BadSettings(
                f"--milvus {wanted}: {self.root} holds the data of --milvus {here}; take another --folder"
            )
        has_server = importlib.util.find_spec("milvus") is not None
        chosen = here or wanted or (SERVER if has_server else LITE)
        if chosen == SERVER and not has_server:
            raise BadSettings(
                "the Milvus server is not installed: pip install 'lookalike[server]' on Linux x86-64 or macOS; "
                "elsewhere take --milvus lite and another --folder than one with a server's data"
            )
        return chosen

    @contextmanager
    def held(self) -> Iterator[int]:
        """Hold the folder; gives the descriptor of its lock, for children to hold too. Raises Busy.

        What a killed stack has left running so keeps the next one out: two Milvus must not have the same data.
        """
        import fcntl

        try:
            (self.root / "logs").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadSettings(f"--folder {str(self.root)!r} cannot be made or written: {error.strerror}") from error
        with os.fdopen(lock, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyRunning(
                    f"lookalike up, process {file.read() or 'unknown'}, has the folder {self.root}, or what it started "
                    "has not ended yet; end it, or take another --folder"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield lock
