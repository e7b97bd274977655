"""A file that says which process holds a lock, for the message that another process gets."""

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import click


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process: its id, its command without options, and since when (seconds since 1970) it has what it has.

    `service` is the URL of the HTTP service that it runs, `milvus` the URL at which it takes calls as Milvus.
    """

    pid: int
    command: str
    since: float
    service: str = ""
    milvus: str = ""

    @classmethod
    def of_this_process(cls) -> Self:
        """Describe this process, now."""
        return cls(os.getpid(), _describe_command(), time.time())

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Read what `write` wrote; None when it cannot be read."""
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, file: Path) -> None:
        """Write the record. Does nothing when the file cannot be written: it is only for a message."""
        # Another process never sees half of it.
        part = file.with_name(f"{file.name}.{self.pid}")
        try:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")
            part.replace(file)
        except OSError:
            with suppress(OSError):
                part.unlink()

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since)
        is_today = since.date() == datetime.now().date()
        return f"process {self.pid} (`{self.command}`, since {since:{'%H:%M' if is_today else '%Y-%m-%d %H:%M'}})"


def _describe_command() -> str:
    """Return the command of this process without its options, which may hold a secret."""
    context = click.get_current_context(silent=True)
    if context is not None:
        return context.command_path
    program = Path(sys.argv[0] if sys.argv else "").name
    if program in ("lookalike", "__main__.py"):
        return " ".join(["lookalike", *[text for text in sys.argv[1:] if not text.startswith("-")][:1]])
    return f"python {program}".strip()
