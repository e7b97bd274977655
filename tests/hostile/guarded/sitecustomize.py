"""Python loads this in each child process of the hostile suite: it may reach this machine only, and says what it tried.

`HOSTILE_REPORTS` names the folder of the reports, one file for each process. `HOSTILE_NAMES` is JSON: host names, and
the addresses that each resolves to, in place of DNS. `HOSTILE_ROUTES` is JSON: public addresses, and the port of this
machine that stands for each.
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
_routes: dict[str, int] = json.loads(os.environ.get("HOSTILE_ROUTES", "{}"))
_looked_up: list[str] = []
_routed: list[str] = []
_resolve, _connect = socket.getaddrinfo, socket.create_connection


def _resolve_names(host: Any, port: Any, *more: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    if name not in _names:
        return _resolve(host, port, *more, **options)
    _looked_up.append(name)
    return [found for address in _names[name] for found in _resolve(address, port, *more, **options)]


def _connect_to_stand_in(address: Any, *more: Any, **options: Any) -> socket.socket:
    if address[0] in _routes:
        _routed.append(address[0])
        address = ("127.0.0.1", _routes[address[0]])
    return _connect(address, *more, **options)


socket.getaddrinfo = _resolve_names
socket.create_connection = _connect_to_stand_in


def _report() -> None:
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    report = {"refused": _refused, "looked_up": _looked_up, "routed": _routed, "peak": int(peak.split()[1]) * 1024}
    folder = Path(os.environ["HOSTILE_REPORTS"])
    (folder / f"{os.getpid()}.json").write_text(json.dumps(report))


if "HOSTILE_REPORTS" in os.environ:
    atexit.register(_report)
