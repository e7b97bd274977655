"""One fetch, from a URL to the bytes of an image: request → redirects → body, tried again where that can help."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import httpcore2
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_random_exponential

from lookalike.encode.fetch.body import content_length, header, read_body
from lookalike.encode.fetch.errors import FetchFailed, TransientFailure, explain
from lookalike.encode.fetch.host_slots import HostSlots
from lookalike.encode.fetch.limits import FetchTimeout, Limits, until
from lookalike.encode.fetch.network import AddressPolicy, GuardedNetwork
from lookalike.encode.fetch.url import Target, join_url, parse_url
from lookalike.encode.fetch.validators import KnownImage, Validators

_HEADERS = [
    (b"User-Agent", b"lookalike"),  # some servers refuse clients without a name
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
]
_REDIRECTS = (301, 302, 303, 307, 308)
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_IDLE_CONNECTIONS = 32
_IDLE_SECONDS = 15.0
_DRAINED = 2**16
"""Bytes of a body that is not wanted: as few are read, so that the connection can be used again."""

_BACKOFF = wait_random_exponential(multiplier=0.2, max=5)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that arrived whole; what the server calls its version and its type."""

    content: bytes
    validators: Validators
    media_type: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be fetched: at most so many bytes, and only if it is not what is known."""

    url: str
    max_bytes: int
    known: KnownImage | None = None


class Fetcher:
    """Fetches images by URL, for many threads at once; connections are kept and shared. Close it when done.

    Once `cancelled` is set, fetches that are under way raise Cancelled within a second or so, and so do later ones.
    """

    def __init__(
        self, limits: Limits, rules: AddressPolicy | None = None, cancelled: threading.Event | None = None
    ) -> None:
        self._limits = limits
        self._cancelled = cancelled or threading.Event()
        self._rules = rules or AddressPolicy()
        self._network = GuardedNetwork(self._rules, limits)
        self._hosts = HostSlots(limits.per_host)
        # Each connection makes its own TLS context: httpcore writes to it, which threads must not do to a shared one.
        self._pool = httpcore2.ConnectionPool(
            max_connections=None,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=self._network,
        )

    def fetch(self, url: str, *, max_bytes: int | None = None, seconds: float | None = None) -> Fetched:
        """Return the image at a URL. Both bounds may be narrower than the limits. Raises FetchFailed."""
        most = min(self._limits.max_bytes, max_bytes if max_bytes is not None else self._limits.max_bytes)
        fetched = self._fetch(_Wanted(url.strip(), most), seconds)
        if fetched is None:
            raise FetchFailed("the server answered 304, although it was asked for the whole image")
        return fetched

    def fetch_changed(self, url: str, known: KnownImage) -> Fetched | None:
        """Return the image at a URL, None when the server says that it is the one that is known."""
        return self._fetch(_Wanted(url.strip(), self._limits.max_bytes, known), None)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._network.close()

    def _fetch(self, wanted: _Wanted, seconds: float | None) -> Fetched | None:
        """Fetch within `seconds` from now; without them within the limit, from when the host has a slot for it."""
        whole = self._limits.whole if seconds is None else min(seconds, self._limits.whole)
        asked = time.monotonic()
        host = parse_url(wanted.url, trusted=self._rules.trusted).url.host
        try:
            with self._hosts.take(host, None if seconds is None else whole):
                started = time.monotonic() if seconds is None else asked
                with until(started + whole, self._cancelled):
                    return self._persist(wanted, started + whole - time.monotonic())
        except FetchTimeout as error:
            raise TransientFailure(": ".join(filter(None, (f"timed out after {whole:.3g} s", str(error))))) from error

    def _persist(self, wanted: _Wanted, seconds: float) -> Fetched | None:
        attempts = Retrying(
            retry=retry_if_exception_type(TransientFailure),
            wait=_pause,
            stop=stop_after_attempt(self._limits.attempts) | stop_before_delay(seconds),
            sleep=sleep_using_event(self._cancelled),
            reraise=True,
        )
        return attempts(self._follow, wanted)

    def _follow(self, wanted: _Wanted) -> Fetched | None:
        url = wanted.url
        for _ in range(1 + self._limits.redirects):
            with self._opened(parse_url(url, trusted=self._rules.trusted), wanted.known) as response:
                location = header(response, b"location")
                if response.status not in _REDIRECTS or location is None:
                    return _read(response, wanted)
                _drain(response)
            url = join_url(url, location)
        raise FetchFailed(f"it was redirected more than {self._limits.redirects} times")

    @contextmanager
    def _opened(self, target: Target, known: KnownImage | None) -> Iterator[httpcore2.Response]:
        headers = [(b"Host", target.host_header), *_HEADERS, *(known.validators.headers() if known else [])]
        if target.authorization is not None:
            headers.append((b"Authorization", target.authorization))
        try:
            response = self._sent(httpcore2.Request("GET", target.url, headers=headers))
            with closing(response):
                yield response
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise explain(error) from error

    def _sent(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request. A server may close a kept connection at any moment: then the next one is taken at once."""
        while True:
            connections = _Connections()
            request.extensions = {"trace": connections}
            try:
                return self._pool.handle_request(request)
            except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
                if connections.opened:
                    raise


class _Connections:
    """Notes whether a request has opened a connection, or was given one that is kept. A trace of httpcore."""

    opened = False

    def __call__(self, event: str, _: object) -> None:
        self.opened = self.opened or "connect_tcp" in event


def _read(response: httpcore2.Response, wanted: _Wanted) -> Fetched | None:
    if wanted.known is not None and wanted.known.is_answered_by(response):
        _drain(response)
        return None
    if response.status == 200:
        content = read_body(response, wanted.max_bytes)
        return Fetched(content, Validators.of(response), header(response, b"content-type") or "")
    _drain(response)
    answer = f"the server answered {response.status}"
    if response.status in _MAY_PASS:
        raise TransientFailure(answer, after=_seconds(header(response, b"retry-after")))
    raise FetchFailed(answer)


def _drain(response: httpcore2.Response) -> None:
    """Read what is left of a small body; a connection whose response is not read to its end is closed."""
    size = 0 if response.status == 304 else content_length(response)
    if size is not None and size < _DRAINED:
        with suppress(httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
            response.read()


def _seconds(told: str | None) -> float:
    """Read a Retry-After in seconds; its other form, a date, is rare and left out."""
    return float(told) if told is not None and told.isdecimal() else 0.0


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), error.after if isinstance(error, TransientFailure) else 0.0)
