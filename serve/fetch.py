"""A picture that a request names by URL: fetched from the public internet only, within bounds of size and time."""

import ipaddress
import re
import socket
import ssl
import string
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpcore2

from schema.errors import BadQuery
from serve.deadline import current

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
_INSIDE_CLOUDS = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")))
"""Global by the book, yet metadata services answer there: Oracle's and Azure's."""

_REDIRECTS = 3
_LONGEST = 8000
"""Bytes of a URL: a request that fits a socket's buffer cannot be held up by a server that does not read."""

_RESOLVERS = 32
_HEADERS = [
    (b"User-Agent", b"lookalike"),  # some hosts of pictures refuse who gives no name
    (b"Accept", b"image/*"),
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"close"),
]


def is_public(address: Address) -> bool:
    """Tell whether an address, and the IPv4 address that an IPv6 one may stand for, is of the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        inside = any(address in network for network in _INSIDE_CLOUDS)
        return address.is_global and not address.is_multicast and not inside
    embedded = _embedded(address)
    if embedded is not None:
        return is_public(embedded)
    # Python calls much outside 2000::/3 global (fec0::, ::127.0.0.1); Teredo it does not.
    return address in _UNICAST and address.is_global


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class Fetcher:
    """Fetches pictures by URL for many threads at once; every fetch has its own connections."""

    def __init__(
        self, *, max_bytes: int, seconds: float = 10.0, allowed: Callable[[Address], bool] = is_public
    ) -> None:
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._allowed = allowed
        self._resolvers = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")

    def fetch(self, url: str, *, max_bytes: int | None = None, seconds: float | None = None) -> bytes:
        """Return what is at an http or https URL; `seconds` bound it from first to last. Raises BadQuery.

        Both bounds may be narrower than those of the fetcher.
        """
        most = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        time_left = self._seconds if seconds is None else min(seconds, self._seconds)
        network = _Guarded(self._resolvers, self._allowed, time.monotonic() + time_left)
        try:
            return self._follow(url.strip(), network, most)
        except (_Unfetched, httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            why = _why(error, time_left)
            raise BadQuery(f"{_shown(url)} could not be fetched: {why}; send the picture itself instead") from error

    def close(self) -> None:
        """Let go of the threads that resolve names."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def _follow(self, url: str, network: "_Guarded", most: int) -> bytes:
        for _ in range(1 + _REDIRECTS):
            with self._asked(_parsed(url), network) as response:
                further = _redirected(response, url)
                if further is None:
                    return _body(response, most)
            url = further
        raise _Unfetched(f"it was redirected more than {_REDIRECTS} times")

    @contextmanager
    def _asked(self, url: httpcore2.URL, network: "_Guarded") -> Iterator[httpcore2.Response]:
        headers = [(b"Host", _host_header(url)), *_HEADERS]
        # Each connection makes its own TLS context: httpcore writes to it, which threads must not do to a shared one.
        with (
            httpcore2.HTTPConnection(url.origin, network_backend=network) as connection,
            connection.stream("GET", url, headers=headers) as response,
        ):
            yield response


class Fetches:
    """The fetches of one request: so many, so many bytes in all, and no longer than anybody waits for its answer."""

    def __init__(self, fetcher: Fetcher | None, most: int, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._most = most
        self._done = 0
        self._bytes_left = max_bytes

    def fetch(self, url: str) -> bytes:
        """Fetch a picture. Raises BadQuery, always so without a fetcher; TooLate."""
        if self._fetcher is None:
            raise BadQuery("image_url is not fetched by this service (--fetch-urls); send the picture itself as image")
        if self._done == self._most:
            raise BadQuery(f"one request may name {self._most} pictures by image_url; send the others in another one")
        deadline = current()
        if deadline is not None:
            deadline.check()
        self._done += 1
        seconds = deadline.left if deadline is not None else None
        content = self._fetcher.fetch(url, max_bytes=self._bytes_left, seconds=seconds)
        self._bytes_left -= len(content)
        return content


class _Unfetched(Exception):
    """Why a fetch came to nothing, as a clause of the message."""


class _Guarded(httpcore2.NetworkBackend):
    """The network of one fetch: resolves names itself, and connects to the very address that it has checked."""

    def __init__(self, resolvers: ThreadPoolExecutor, allowed: Callable[[Address], bool], deadline: float) -> None:
        self._resolvers = resolvers
        self._allowed = allowed
        self._deadline = deadline

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
        for untried in range(len(addresses), 1, -1):
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return self._connected(addresses[-untried], port, _left(self._deadline) / untried)
        return self._connected(addresses[-1], port, _left(self._deadline))

    def _connected(self, address: Address, port: int, seconds: float) -> httpcore2.NetworkStream:
        return _Timed(httpcore2.SyncBackend().connect_tcp(str(address), port, seconds), self._deadline)

    def _checked(self, host: str, port: int) -> list[Address]:
        addresses = self._resolved(host, port)
        # An unknown name gets the same answer: nobody shall learn which names exist inside.
        if not addresses or not all(map(self._allowed, addresses)):
            raise _Unfetched(f"the host {host!r} does not lead to a public address")
        return addresses

    def _resolved(self, host: str, port: int) -> list[Address]:
        # Resolving knows no timeout, so a thread is left behind to it.
        answer = self._resolvers.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = answer.result(_left(self._deadline))
        except TimeoutError as error:
            answer.cancel()
            raise httpcore2.ConnectTimeout from error
        except (OSError, UnicodeError):
            return []
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


class _Timed(httpcore2.NetworkStream):
    """A stream that ends at a deadline: httpcore's own timeouts begin anew with every byte that drips in."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore2.TimeoutException
    return left


def _parsed(url: str) -> httpcore2.URL:
    if not url[:8].lower().startswith(("http://", "https://")):
        raise _Unfetched("only http:// and https:// are fetched")
    try:
        if len(_visible(url[: _LONGEST + 1])) > _LONGEST:
            raise _Unfetched(f"a URL has at most {_LONGEST} bytes")
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:
        raise _Unfetched("this is not a URL") from error
    if "@" in parts.netloc:
        raise _Unfetched("a URL with a user or password is not fetched")
    if not re.fullmatch(rb"[a-z0-9._:-]+", host):
        raise _Unfetched("its host is not a name or address")
    target = _visible(parts.path or "/") + (f"?{_visible(parts.query)}" if parts.query else "")
    return httpcore2.URL(scheme=parts.scheme, host=host, port=port, target=target)


def _body(response: httpcore2.Response, most: int) -> bytes:
    if response.status != 200:
        raise _Unfetched(f"the server answered {response.status}")
    _check_size(int(_header(response, b"content-length") or 0), most)
    body = bytearray()
    for part in response.iter_stream():
        body += part
        _check_size(len(body), most)
    return bytes(body)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise _Unfetched(f"it has more than {most} bytes, which is the limit")


def _visible(text: str) -> str:
    """Percent-encode what may not stand in a request line, and leave alone what is encoded already."""
    return quote(text, safe=string.punctuation)


def _host_header(url: httpcore2.URL) -> bytes:
    host = b"[%b]" % url.host if b":" in url.host else url.host
    return host if url.port is None else b"%b:%d" % (host, url.port)


def _redirected(response: httpcore2.Response, url: str) -> str | None:
    location = _header(response, b"location")
    if response.status not in (301, 302, 303, 307, 308) or location is None:
        return None
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise _Unfetched("it was redirected to what is not a URL") from error


def _header(response: httpcore2.Response, name: bytes) -> str | None:
    return next((value.decode("utf-8", "replace") for key, value in response.headers if key.lower() == name), None)


def _why(error: Exception, seconds: float) -> str:
    cause = error.__cause__
    if isinstance(error, httpcore2.TimeoutException):
        return f"timed out after {seconds:.3g} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({cause.verify_message.rstrip('.')})"
    if isinstance(error, httpcore2.NetworkError):
        return "the connection failed"
    if isinstance(error, httpcore2.ProtocolError):
        return "the server broke off, or did not answer in HTTP"
    return str(error)


def _shown(url: str) -> str:
    """Shorten a URL for a message, without the password that it may hold."""
    shown = re.sub(r"(?:^|(?<=/))[^/]*@", "…@", url[: 2 * _LONGEST])
    return repr(shown if len(shown) <= 100 else f"{shown[:100]}…")
