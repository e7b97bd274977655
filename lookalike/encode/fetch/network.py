"""The network of a fetcher: it resolves names itself, connects to the address that it has checked, keeps deadlines."""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpcore2

from lookalike.encode.fetch.address import Address, is_public
from lookalike.encode.fetch.errors import AddressRefused, TransientFailure
from lookalike.encode.fetch.limits import Limits, seconds_left

_RESOLVERS = 32
_LEAST = 0.001
_LOOK = 0.25
"""Seconds: a read that waits looks so often whether its fetch was cancelled."""

_Resolved = list[tuple[Any, ...]]
"""What `socket.getaddrinfo` returns."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which URLs are fetched: those whose host leads to `allowed` addresses only.

    URLs of a `trusted` author may hold a user and a password, and an error says where their host leads.
    """

    allowed: Callable[[Address], bool] = is_public
    trusted: bool = False


class GuardedNetwork(httpcore2.NetworkBackend):
    """Connects to allowed addresses only, each attempt within the deadline of its fetch."""

    def __init__(self, rules: AddressPolicy, limits: Limits) -> None:
        self._rules = rules
        self._limits = limits
        self._resolvers = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that answers; each has its share of the time. From NetworkBackend."""
        addresses = self._checked(host, port)
        end = time.monotonic() + seconds_left(self._limits.connect)
        for untried in range(len(addresses), 1, -1):
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._connected(addresses[-untried], port, (end - time.monotonic()) / untried)
        return self._connected(addresses[-1], port, end - time.monotonic())

    def close(self) -> None:
        """Let go of the threads that resolve names."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _connected(self, address: Address, port: int, seconds: float) -> httpcore2.NetworkStream:
        with _timed(seconds) as timeout:
            return _DeadlineStream(httpcore2.SyncBackend().connect_tcp(str(address), port, timeout), self._limits)

    def _checked(self, host: str, port: int) -> list[Address]:
        addresses = self._resolved(host, port)
        refused = next((address for address in addresses if not self._rules.allowed(address)), None)
        if addresses and refused is None:
            return addresses
        if not self._rules.trusted:
            # An unknown name gets the same answer: nobody shall learn which names exist inside.
            raise AddressRefused(f"the host {host!r} does not lead to a public address")
        if refused is None:
            raise TransientFailure(f"the host {host!r} is not known")
        raise AddressRefused(f"the host {host!r} leads to {refused}, which is not a public address")

    def _resolved(self, host: str, port: int) -> list[Address]:
        # Resolving knows no timeout, so a thread is left behind to it.
        answer = self._resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            with _timed(self._limits.connect) as timeout:
                found = _result(answer, timeout)
        except (OSError, UnicodeError):
            return []
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


class _DeadlineStream(httpcore2.NetworkStream):
    """A stream that ends at the deadline of its fetch: httpcore's timeouts begin anew with every byte that drips in."""

    def __init__(self, stream: httpcore2.NetworkStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = time.monotonic() + seconds_left(self._limits.read)
        while True:
            try:
                return self._stream.read(max_bytes, max(_LEAST, min(_LOOK, end - time.monotonic())))
            except httpcore2.ReadTimeout:
                seconds_left()
                if time.monotonic() >= end:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _timed(self._limits.read) as seconds:
            self._stream.write(buffer, seconds)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        with _timed(self._limits.connect) as seconds:
            return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds), self._limits)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@contextmanager
def _timed(most: float) -> Iterator[float]:
    """Give a step its timeout: `most`, or what is left until the deadline. Raises OutOfTime where that ended it."""
    timeout = seconds_left(max(most, _LEAST))
    try:
        yield timeout
    except httpcore2.TimeoutException:
        seconds_left()
        raise


def _result(answer: Future[_Resolved], timeout: float) -> _Resolved:
    try:
        return answer.result(timeout)
    except TimeoutError as error:
        answer.cancel()
        raise httpcore2.ConnectTimeout from error
