"""Python loads this in each child process of the hostile suite: it may reach this machine only, and says what it tried.

`HOSTILE_REPORTS` names the folder of the reports, one file for each process. `HOSTILE_NAMES` is JSON: host names, and
the addresses that each resolves to, in place of DNS.
"""

import atexit
import json
import os
import socket
from pathlib import Path
from typing import Any

from loopback import loopback_only

_guard = loopback_only()
_refused = _guard.__enter__()
_names: dict[str, list[str]] = json.loads(os.environ.get("HOSTILE_NAMES", "{}"))
_looked_up: list[str] = []
_resolve = socket.getaddrinfo


def _resolve_names(host: Any, port: Any, *more: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name not in _names:
        return _resolve(host, port, *more, **options)
    _looked_up.append(name)
    return [found for address in _names[name] for found in _resolve(address, port, *more, **options)]


socket.getaddrinfo = _resolve_names


def _report() -> None:
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    report = {"refused": _refused, "looked_up": _looked_up, "peak": int(peak.split()[1]) * 1024}
    folder = Path(os.environ["HOSTILE_REPORTS"])
    (folder / f"{os.getpid()}.json").write_text(json.dumps(report))


if "HOSTILE_REPORTS" in os.environ:
    atexit.register(_report)
