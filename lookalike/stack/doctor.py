"""`lookalike doctor`: what is in order here, what is not, and what to do about it."""

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from lookalike.schema.errors import LookalikeError
from lookalike.schema.output import format_option, printable
from lookalike.schema.settings import setting, store_options
from lookalike.stack import install_checks as installed
from lookalike.stack import system_checks as surroundings
from lookalike.stack.finding import Check, Finding

_CHECKS: dict[str, Check] = {
    "python": installed.python,
    "packages": installed.packages,
    "milvus": surroundings.milvus,
    "api": surroundings.api,
    "disk": surroundings.disk,
    "memory": surroundings.memory,
    # Last, for they take seconds.
    "imports": installed.imports,
    "gpu": installed.gpu,
}
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@store_options
@setting("--api", metavar="ADDRESS", help="A service to ask as well, such as http://localhost:8000.")
@format_option("table", "json")
def doctor(output: str, **asked: Any) -> None:
    """Look at this installation, Milvus, the collection, the encoder, and the service at --api.

    Nothing is changed: what Milvus can do is tried on a collection of the doctor's own, which is dropped again.
    Exit status 0 when there is no problem, 1 when there is.
    """
    # Told to end, it still drops what it has made.
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    found = []
    for name, check in _CHECKS.items():
        for finding in run_checks(name, check, asked):
            found.append(finding)
            if output == "table":
                _print(finding)
    if output == "json":
        click.echo(json.dumps([asdict(finding) for finding in found]))
    if any(finding.state == "problem" for finding in found):
        sys.exit(1)


def run_checks(name: str, check: Check, asked: Mapping[str, Any]) -> Iterator[Finding]:
    """What a check finds; what it raises is a problem that it has found."""
    try:
        yield from check(asked)
    except LookalikeError as error:
        yield Finding(name, "problem", str(error))
    # Whatever a broken installation raises is what was found.
    except Exception as error:  # noqa: BLE001
        yield Finding(name, "problem", f"{type(error).__name__}: {error}", "pip install --upgrade lookalike")


def _print(finding: Finding) -> None:
    state = click.style(f"{finding.state:8}", fg=_COLOURS[finding.state])
    click.echo(f"{state} {finding.check:15} {printable(finding.found)}")
    if finding.do:
        click.echo(f"{'':24} → {printable(finding.do)}")
