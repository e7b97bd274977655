"""A guard for tests of hostile addresses: this process reaches no other machine, whatever the code under test does."""

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
"""An address in any notation, which is resolved without asking anyone."""

_watching: list[list[str]] = []
_installed = False


@contextmanager
def loopback_only() -> Iterator[list[str]]:
    """Refuse, before they are made, connections and look-ups that would leave this machine.

    Gives the addresses that would have been dialled.
    Works by Python's audit events, which come from the socket itself: there is no way around them for patched code.
    """
    global _installed
    if not _installed:
        # A hook stays for the life of the process; without a list it does nothing.
        sys.addaudithook(_hook)
        _installed = True
    refused: list[str] = []
    _watching.append(refused)
    try:
        yield refused
    finally:
        _watching.remove(refused)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _check(arguments[1])
    elif event == "socket.getaddrinfo":
        _check_name(arguments[0])


def _check(address: Any) -> None:
    # A Unix socket has a path; a datagram that goes where its socket is connected to has no address.
    if not isinstance(address, tuple) or not address:
        return
    host = str(address[0])
    if not _is_loopback(host):
        _watching[-1].append(host)
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
