"""The network of a fetcher: resolves names, checks the addresses, connects to what it has checked, keeps deadlines."""

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
from lookalike.encode.fetch.limits import Limits, check_scope, timeout_within_scope

_RESOLVER_THREADS = 32
_MIN_TIMEOUT = 0.001
_POLL_SECONDS = 0.25
"""How often a read that waits checks whether its fetch was cancelled."""

_AddressInfo = list[tuple[Any, ...]]
"""What `socket.getaddrinfo` returns."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Which URLs are fetched: those whose host leads to `allowed` addresses only.

    URLs from a `trusted` author may hold a user and a password, and an error says where their host leads.
    """

    allowed: Callable[[Address], bool] = is_public
    trusted: bool = False


class GuardedNetwork(httpcore2.NetworkBackend):
    """Connects to allowed addresses only, and ends each step at the deadline of its fetch."""

    def __init__(self, policy: AddressPolicy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._resolvers = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that answers; each has its share of the time. From NetworkBackend."""
        addresses = self._resolve_allowed(host, port)
        deadline = time.monotonic() + timeout_within_scope(self._limits.connect)
        for untried in range(len(addresses), 1, -1):
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._connect(addresses[-untried], port, (deadline - time.monotonic()) / untried)
        return self._connect(addresses[-1], port, deadline - time.monotonic())

    def close(self) -> None:
        """End the threads that resolve names, without waiting for them."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _connect(self, address: Address, port: int, seconds: float) -> httpcore2.NetworkStream:
        with _step_timeout(seconds) as timeout:
            return _DeadlineStream(httpcore2.SyncBackend().connect_tcp(str(address), port, timeout), self._limits)

    def _resolve_allowed(self, host: str, port: int) -> list[Address]:
        """Resolve a host. Raises AddressRefused unless all of its addresses are allowed, TransientFailure."""
        addresses = self._resolve(host, port)
        refused = next((address for address in addresses if not self._policy.allowed(address)), None)
        if addresses and refused is None:
            return addresses
        if not self._policy.trusted:
            # The same message for an unknown name: otherwise a caller could find out which names exist inside.
            raise AddressRefused(f"the host {host!r} does not lead to a public address")
        if refused is None:
            raise TransientFailure(f"the host {host!r} is not known")
        raise AddressRefused(f"the host {host!r} leads to {refused}, which is not a public address")

    def _resolve(self, host: str, port: int) -> list[Address]:
        # getaddrinfo takes no timeout, so it runs on a thread that can be left behind.
        lookup = self._resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            with _step_timeout(self._limits.connect) as timeout:
                entries = _wait_for(lookup, timeout)
        except (OSError, UnicodeError):
            return []
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in entries))


class _DeadlineStream(httpcore2.NetworkStream):
    """A stream that ends at the deadline of its fetch: httpcore's timeouts start anew with every byte that arrives."""

    def __init__(self, stream: httpcore2.NetworkStream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = time.monotonic() + timeout_within_scope(self._limits.read)
        while True:
            try:
                seconds = min(_POLL_SECONDS, deadline - time.monotonic())
                return self._stream.read(max_bytes, max(_MIN_TIMEOUT, seconds))
            except httpcore2.ReadTimeout:
                check_scope()
                if time.monotonic() >= deadline:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _step_timeout(self._limits.read) as seconds:
            self._stream.write(buffer, seconds)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        with _step_timeout(self._limits.connect) as seconds:
            return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds), self._limits)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@contextmanager
def _step_timeout(seconds: float) -> Iterator[float]:
    """Give a step its timeout, in seconds. Raises FetchTimeout or Cancelled instead, where that has ended the step."""
    timeout = timeout_within_scope(max(seconds, _MIN_TIMEOUT))
    try:
        yield timeout
    except httpcore2.TimeoutException:
        check_scope()
        raise


def _wait_for(lookup: Future[_AddressInfo], timeout: float) -> _AddressInfo:
    try:
        return lookup.result(timeout)
    except TimeoutError as error:
        lookup.cancel()
        raise httpcore2.ConnectTimeout from error
