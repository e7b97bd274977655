"""A guard for tests of hostile addresses: it keeps this process from reaching any other machine."""

import errno
import ipaddress
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCAL_NAMES = ("localhost", "")
_LITERAL = re.compile(r"[0-9.]+|0x[0-9a-fx.]+|[0-9a-f:.]*:[0-9a-f:.]*(%\w+)?")
"""An IP address in any notation; resolving it needs no DNS."""

_active: list[list[str]] = []
_installed = False


@contextmanager
def loopback_only() -> Iterator[list[str]]:
    """Refuse connections and DNS look-ups that would leave this machine; yields the list of refused addresses.

    Uses Python's audit events, which the socket module raises itself: code cannot bypass them by patching functions.
    """
    global _installed
    if not _installed:
        # A hook cannot be removed; outside the block it does nothing.
        sys.addaudithook(_hook)
        _installed = True
    refused: list[str] = []
    _active.append(refused)
    try:
        yield refused
    finally:
        _active.remove(refused)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active:
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _check_address(arguments[1])
    elif event == "socket.getaddrinfo":
        _check_name(arguments[0])


def _check_address(address: Any) -> None:
    # A Unix socket has a path; a datagram on a connected socket has no address.
    if not isinstance(address, tuple) or not address:
        return
    host = str(address[0])
    if not _is_loopback(host):
        _active[-1].append(host)
        raise OSError(errno.ENETUNREACH, "refused by the tests")


def _check_name(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    if name not in _LOCAL_NAMES and not _LITERAL.fullmatch(name.lower()):
        raise socket.gaierror(socket.EAI_NONAME, "refused by the tests")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
