"""Child processes that may reach this machine only; each says what it tried to reach, and how much memory it took."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from command import ROOT, process_command, process_environment
from hostile.attacked import Child, child_service


@dataclass(frozen=True, slots=True)
class Internet:
    """What a child takes for the internet: names and their addresses, and the local port that stands for an address."""

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    routes: Mapping[str, int] = field(default_factory=dict)


NO_INTERNET = Internet()
_GUARD = ROOT / "tests" / "hostile" / "guarded"


class Report(NamedTuple):
    """What processes that have ended tried and took."""

    dialled: list[str]
    """Addresses outside this machine; the connections were refused before they were made."""
    looked_up: list[str]
    """Names of `names` that were resolved."""
    routed: list[str]
    """Public addresses that another port of this machine stood for."""
    peak: int
    """The most memory that one of them took, in bytes."""

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read the reports in a folder."""
        reports = [json.loads(file.read_text()) for file in folder.glob("*.json")]
        assert reports, "no process was guarded"
        return cls(
            [address for report in reports for address in report["refused"]],
            [name for report in reports for name in report["looked_up"]],
            [address for report in reports for address in report["routed"]],
            max(report["peak"] for report in reports),
        )


class Ended(NamedTuple):
    """A command that has ended."""

    status: int
    stdout: bytes
    stderr: str
    seconds: float
    report: Report


def guard(reports: Path, internet: Internet = NO_INTERNET) -> dict[str, str]:
    """Return the variables of the environment that guard a child."""
    reports.mkdir(parents=True)
    paths = os.pathsep.join(map(str, (_GUARD, ROOT / "tests", ROOT)))
    return {
        "PYTHONPATH": paths,
        "HOSTILE_REPORTS": str(reports),
        "HOSTILE_NAMES": json.dumps(dict(internet.names)),
        "HOSTILE_ROUTES": json.dumps(dict(internet.routes)),
    }


def run_guarded(*arguments: object, cwd: Path, internet: Internet = NO_INTERNET, timeout: float = 300) -> Ended:
    """Run the command `lookalike` as a guarded process."""
    reports, started = cwd / f"reports-{time.monotonic_ns()}", time.monotonic()
    done = subprocess.run(
        process_command(*arguments),
        cwd=cwd,
        env={**process_environment(), **guard(reports, internet)},
        capture_output=True,
        timeout=timeout,
    )
    seconds = time.monotonic() - started
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Ended(done.returncode, done.stdout, done.stderr.decode(), seconds, Report.read(reports))


@contextmanager
def guarded_service(
    folder: Path, *options: str, internet: Internet = NO_INTERNET, **environment: str
) -> Iterator[Child]:
    """Run `lookalike serve`, guarded. After the block it has ended by itself, and dialled no other machine."""
    reports = folder / f"reports-{time.monotonic_ns()}"
    with child_service(folder, *options, **guard(reports, internet), **environment) as child:
        yield child
    assert child.process.returncode == 0, child.log.read_text()[-2_000:]
    assert Report.read(reports).dialled == []
