"""The command `lookalike` for tests: in this process, or as a process of its own."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lookalike.cli import main

ROOT = Path(__file__).parents[1]
LAYOUT = ("--layout", "{category}/{product_id}/{image}")

Done = subprocess.CompletedProcess[bytes]


def lookalike(*arguments: object, cwd: Path, stdin: bytes = b"", **environment: Any) -> Done:
    """Run the command in this process, which has already imported pymilvus and torch: saves a second each time."""
    out, err = io.BytesIO(), io.BytesIO()
    with (
        contextlib.chdir(cwd),
        patch.dict(os.environ, {**process_environment(), **environment}, clear=True),
        io.TextIOWrapper(io.BytesIO(stdin), "utf-8") as input_stream,
        io.TextIOWrapper(out, "utf-8", write_through=True) as stdout,
        io.TextIOWrapper(err, "utf-8", errors="backslashreplace", write_through=True) as stderr,
        patch.multiple(sys, stdin=input_stream, stdout=stdout, stderr=stderr),
    ):
        status = _status([*map(str, arguments)])
        return Done([*map(str, arguments)], status, out.getvalue(), err.getvalue())


def _status(arguments: list[str]) -> int:
    try:
        main(arguments, prog_name="lookalike")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def lookalike_process(*arguments: object, cwd: Path, stdin: bytes = b"", **environment: Any) -> Done:
    """Run the command as a separate process, as a shell does."""
    return subprocess.run(
        process_command(*arguments),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        env={**process_environment(), **environment},
        timeout=300,
    )


def process_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lookalike", *map(str, arguments)]


def process_environment() -> dict[str, str]:
    """The environment of this process without the settings of lookalike and Milvus."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LOOKALIKE_", "MILVUS_"))}
    return {**inherited, "PYTHONPATH": str(ROOT)}


def fails(status: int, *arguments: object, cwd: Path, run: Callable[..., Done] = lookalike, **environment: Any) -> str:
    """Run a command that must fail with `status` and without a traceback; return the error message."""
    done = run(*arguments, cwd=cwd, **environment)
    message = done.stderr.decode()
    assert done.returncode == status, message
    assert "Traceback" not in message
    assert not done.stdout
    return message


def wait_for_rows(store: Path) -> None:
    """Wait until Milvus Lite has written the first rows."""
    for _ in range(600):
        if any(log.stat().st_size > 20_000 for log in store.rglob("*.arrow")):
            return
        time.sleep(0.05)
    raise AssertionError("Milvus Lite wrote nothing within 30 s")
