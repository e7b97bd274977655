"""`lookalike doctor`: report what works here, what does not, and how to fix it."""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from lookalike.schema.errors import LookalikeError
from lookalike.schema.output import escape_controls, format_option
from lookalike.schema.settings import setting_option, store_options
from lookalike.stack import install_checks, system_checks
from lookalike.stack.finding import Check, Finding
from lookalike.stack.options import DoctorOptions

_CHECKS: dict[str, Check] = {
    "python": install_checks.check_python,
    "packages": install_checks.check_packages,
    "milvus": system_checks.check_milvus,
    "api": system_checks.check_api,
    "disk": system_checks.check_disk,
    "memory": system_checks.check_memory,
    # The slow checks come last: each takes seconds.
    "imports": install_checks.check_imports,
    "gpu": install_checks.check_gpu,
}
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@store_options
@setting_option(
    "--api", metavar="ADDRESS", help="Also check the service at this address, such as http://localhost:8000."
)
@format_option("table", "json")
def doctor(output: str, **options: Any) -> None:
    """Check this installation, Milvus, the collection, the encoder, and the service at --api.

    Changes nothing: features of Milvus are tried on a temporary collection, which is dropped at the end.
    Exit status 0 without a problem, 1 with one.
    """
    # SIGTERM becomes Ctrl-C, so that the temporary collection is dropped.
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    target = DoctorOptions(**options)
    findings = []
    for name, check in _CHECKS.items():
        for finding in run_check(name, check, target):
            findings.append(finding)
            if output == "table":
                _print_finding(finding)
    if output == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.state == "problem" for finding in findings):
        sys.exit(1)


def run_check(name: str, check: Check, options: DoctorOptions) -> Iterator[Finding]:
    """Run a check; turn any exception that it raises into a finding."""
    try:
        yield from check(options)
    except LookalikeError as error:
        yield Finding(name, "problem", str(error))
    # A broken installation can raise anything.
    except Exception as error:  # noqa: BLE001
        yield Finding(name, "problem", f"{type(error).__name__}: {error}", "pip install --upgrade lookalike")


def _print_finding(finding: Finding) -> None:
    state = click.style(f"{finding.state:8}", fg=_COLOURS[finding.state])
    click.echo(f"{state} {finding.check:15} {escape_controls(finding.found)}")
    if finding.do:
        click.echo(f"{'':24} → {escape_controls(finding.do)}")
