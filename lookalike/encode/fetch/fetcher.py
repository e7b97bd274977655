"""One fetch, from a URL to the bytes of an image: request → redirects → body, with retries of transient failures."""

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
from lookalike.encode.fetch.errors import FetchFailed, TransientFailure, to_fetch_failed
from lookalike.encode.fetch.host_slots import HostSlots
from lookalike.encode.fetch.limits import FetchTimeout, Limits, fetch_scope
from lookalike.encode.fetch.network import AddressPolicy, GuardedNetwork
from lookalike.encode.fetch.url import Target, join_url, parse_url
from lookalike.encode.fetch.validators import KnownImage, Validators

_HEADERS = [
    (b"User-Agent", b"lookalike"),  # some servers refuse clients without a name
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
]
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
_IDLE_CONNECTIONS = 32
_IDLE_SECONDS = 15.0
_MAX_DRAINED = 2**16
"""Bytes: an unneeded body that is smaller is read to its end, so that its connection can be used again."""

_BACKOFF = wait_random_exponential(multiplier=0.2, max=5)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that arrived whole, its validators and its media type."""

    content: bytes
    validators: Validators
    media_type: str


@dataclass(frozen=True, slots=True)
class _ImageRequest:
    """Which image to fetch, in at most `max_bytes` bytes, and unless it is the `known` one."""

    url: str
    max_bytes: int
    known: KnownImage | None = None


class Fetcher:
    """Fetches images by URL; many threads share it and its connections. Close it when done.

    Once `cancelled` is set, running fetches raise Cancelled within about a second, and so do later ones.
    """

    def __init__(
        self, limits: Limits, policy: AddressPolicy | None = None, cancelled: threading.Event | None = None
    ) -> None:
        self._limits = limits
        self._cancelled = cancelled or threading.Event()
        self._policy = policy or AddressPolicy()
        self._network = GuardedNetwork(self._policy, limits)
        self._slots = HostSlots(limits.per_host)
        # Each connection makes its own TLS context: httpcore writes to it, which threads must not do to a shared one.
        self._pool = httpcore2.ConnectionPool(
            max_connections=None,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=self._network,
        )

    def fetch(self, url: str, *, max_bytes: int | None = None, seconds: float | None = None) -> Fetched:
        """Return the image at a URL; `max_bytes` and `seconds` may lower the limits. Raises FetchFailed, Cancelled."""
        bound = self._limits.max_bytes if max_bytes is None else min(max_bytes, self._limits.max_bytes)
        fetched = self._fetch(_ImageRequest(url.strip(), bound), seconds)
        if fetched is None:
            raise FetchFailed("the server answered 304 to a request for the whole image")
        return fetched

    def fetch_changed(self, url: str, known: KnownImage) -> Fetched | None:
        """Return the image at a URL; None when the server says that it is still the known one."""
        return self._fetch(_ImageRequest(url.strip(), self._limits.max_bytes, known), None)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._network.close()

    def _fetch(self, request: _ImageRequest, seconds: float | None) -> Fetched | None:
        """Fetch within `seconds` from now; without them, within the limit from when the host has a free slot."""
        total = self._limits.whole if seconds is None else min(seconds, self._limits.whole)
        called = time.monotonic()
        host = parse_url(request.url, trusted=self._policy.trusted).url.host
        try:
            with self._slots.reserve(host, None if seconds is None else total):
                deadline = (time.monotonic() if seconds is None else called) + total
                with fetch_scope(deadline, self._cancelled):
                    return self._with_retries(request, deadline)
        except FetchTimeout as error:
            raise TransientFailure(": ".join(filter(None, (f"timed out after {total:.3g} s", str(error))))) from error

    def _with_retries(self, request: _ImageRequest, deadline: float) -> Fetched | None:
        attempts = Retrying(
            retry=retry_if_exception_type(TransientFailure),
            wait=_pause,
            stop=stop_after_attempt(self._limits.attempts) | stop_before_delay(deadline - time.monotonic()),
            sleep=sleep_using_event(self._cancelled),
            reraise=True,
        )
        return attempts(self._follow_redirects, request)

    def _follow_redirects(self, request: _ImageRequest) -> Fetched | None:
        url = request.url
        for _ in range(1 + self._limits.redirects):
            with self._open(parse_url(url, trusted=self._policy.trusted), request.known) as response:
                location = header(response, b"location")
                if response.status not in _REDIRECT_STATUSES or location is None:
                    return _read_image(response, request)
                _drain(response)
            url = join_url(url, location)
        raise FetchFailed(f"it was redirected more than {self._limits.redirects} times")

    @contextmanager
    def _open(self, target: Target, known: KnownImage | None) -> Iterator[httpcore2.Response]:
        """Open a response, and turn errors of the HTTP client into FetchFailed, also those while it is read."""
        headers = [(b"Host", target.host_header), *_HEADERS, *(known.validators.request_headers() if known else [])]
        if target.authorization is not None:
            headers.append((b"Authorization", target.authorization))
        try:
            response = self._send(httpcore2.Request("GET", target.url, headers=headers))
            with closing(response):
                yield response
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise to_fetch_failed(error) from error

    def _send(self, request: httpcore2.Request) -> httpcore2.Response:
        """Send a request. A server may close an idle connection at any time: then the next one is used immediately."""
        while True:
            trace = _ConnectionTrace()
            request.extensions = {"trace": trace}
            try:
                return self._pool.handle_request(request)
            except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
                if trace.has_connected:
                    raise


class _ConnectionTrace:
    """Records whether a request has opened a connection, or has reused one. A trace function of httpcore."""

    has_connected = False

    def __call__(self, event: str, _: object) -> None:
        self.has_connected = self.has_connected or "connect_tcp" in event


def _read_image(response: httpcore2.Response, request: _ImageRequest) -> Fetched | None:
    if request.known is not None and request.known.is_unchanged(response):
        _drain(response)
        return None
    if response.status == 200:
        content = read_body(response, request.max_bytes)
        return Fetched(content, Validators.of(response), header(response, b"content-type") or "")
    _drain(response)
    reason = f"the server answered {response.status}"
    if response.status in _TRANSIENT_STATUSES:
        raise TransientFailure(reason, retry_after=_parse_retry_after(header(response, b"retry-after")))
    raise FetchFailed(reason)


def _drain(response: httpcore2.Response) -> None:
    """Read the rest of a small body; httpcore closes a connection whose response is not read to its end."""
    size = 0 if response.status == 304 else content_length(response)
    if size is not None and size < _MAX_DRAINED:
        with suppress(httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
            response.read()


def _parse_retry_after(value: str | None) -> float:
    """Read a Retry-After in seconds; 0 for its other form, a date, which is rare."""
    return float(value) if value is not None and value.isdecimal() else 0.0


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), error.retry_after if isinstance(error, TransientFailure) else 0.0)
