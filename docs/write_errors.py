"""Write docs/errors.md from the docstrings of the error classes: `python docs/write_errors.py`."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import lookalike
from lookalike.cli import exit_status
from lookalike.schema.errors import LookalikeError
from lookalike.serve.api.problems import describe_error

PAGE = Path(__file__).parent / "errors.md"

_INTRODUCTION = """# Errors

Every error that lookalike raises on purpose is a `lookalike.LookalikeError`. Its message says what failed, with which
value, and what to do next. On the command line the message goes to stderr, and the exit status says what kind of error
it was: 2 for invalid usage, 3 for a limit that was exceeded, 130 for Ctrl-C, 1 for anything else. Over HTTP it is a
problem (RFC 9457) with the status below; addresses and paths of the server stand only in its log.

An indented class is a kind of the class above it.

| class | what has happened | what to do | exit status | HTTP |
|---|---|---|---|---|
"""

_UNEXPECTED = 500
"""The status of an error that no request should raise."""

# Errors on the way of one image, or of a client: no command ends with them, no response has them.
_NEVER_LEAVE = ("lookalike.encode.fetch", "lookalike.serve.client")


def write_page() -> str:
    """Return the page."""
    for module in pkgutil.walk_packages(lookalike.__path__, "lookalike."):
        # Both need packages that lookalike itself does not.
        if not module.name.startswith(("lookalike.ingest.ray", "lookalike.encode.towhee", "lookalike.__main__")):
            importlib.import_module(module.name)
    return _INTRODUCTION + "".join(_row(kind, depth) for kind, depth in _walk(LookalikeError, 0))


def _walk(kind: type[LookalikeError], depth: int) -> Iterator[tuple[type[LookalikeError], int]]:
    for child in sorted(kind.__subclasses__(), key=_place):
        yield child, depth
        yield from _walk(child, depth + 1)


def _place(kind: type[LookalikeError]) -> tuple[bool, str, int]:
    """Sort the common errors first, each file in its own order."""
    return kind.__module__ != LookalikeError.__module__, kind.__module__, inspect.getsourcelines(kind)[1]


def _row(kind: type[LookalikeError], depth: int) -> str:
    cause, _, remedy = inspect.cleandoc(kind.__doc__ or "").partition("Remedy: ")
    if not remedy:
        raise SystemExit(f"{kind.__module__}.{kind.__name__} has no paragraph `Remedy: …` in its docstring")
    exit_code = http = ""
    if not kind.__module__.startswith(_NEVER_LEAVE):
        error = kind("")
        status = describe_error(error).status
        exit_code, http = str(exit_status(error)), "" if status == _UNEXPECTED else str(status)
    name = "&emsp;" * depth + f"`{kind.__name__}`"
    return f"| {name} | {_flow(cause)} | {_flow(remedy)[:1].upper()}{_flow(remedy)[1:]} | {exit_code} | {http} |\n"


def _flow(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
