"""A URL as it is sent, and as it is shown in messages."""

import base64
import re
import string
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

import httpcore2

from lookalike.encode.fetch.errors import FetchFailed

_MAX_URL = 8000
"""Bytes of a URL. A request that fits into a socket's buffer is sent even if the server does not read."""

_MAX_SHOWN = 100


class Target(NamedTuple):
    """Where a request goes, and the credentials that its URL holds."""

    url: httpcore2.URL
    authorization: bytes | None

    @property
    def host_header(self) -> bytes:
        """The value of the Host header."""
        host = b"[%b]" % self.url.host if b":" in self.url.host else self.url.host
        return host if self.url.port is None else b"%b:%d" % (host, self.url.port)


def parse_url(url: str, *, trusted: bool) -> Target:
    """Parse a URL; only a trusted one may hold a user and a password. Raises FetchFailed."""
    if not url[:8].lower().startswith(("http://", "https://")):
        raise FetchFailed("only http:// and https:// are fetched")
    try:
        if len(_percent_encode(url[: _MAX_URL + 1])) > _MAX_URL:
            raise FetchFailed(f"a URL has at most {_MAX_URL} bytes")
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna"), parts.port
    except ValueError as error:
        raise FetchFailed("this is not a URL") from error
    user, at, _ = parts.netloc.rpartition("@")
    if at and not trusted:
        raise FetchFailed("a URL with a user or password is not fetched")
    if not re.fullmatch(rb"[a-z0-9._:-]+", host):
        raise FetchFailed("its host is not a name or address")
    target = _percent_encode(parts.path or "/") + (f"?{_percent_encode(parts.query)}" if parts.query else "")
    credentials = b"Basic " + base64.b64encode(unquote_to_bytes(user)) if at else None
    return Target(httpcore2.URL(scheme=parts.scheme, host=host, port=port, target=target), credentials)


def join_url(url: str, location: str) -> str:
    """Return the URL that a redirect leads to. Raises FetchFailed."""
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchFailed("it was redirected to what is not a URL") from error


def shown_url(url: str) -> str:
    """Shorten a URL for a message, and leave out a password."""
    shown = re.sub(r"(?:^|(?<=/))[^/]*@", "…@", url[: 2 * _MAX_URL])
    return repr(shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…")


def _percent_encode(text: str) -> str:
    """Percent-encode what a request line may not contain; leave alone what is encoded already."""
    return quote(text, safe=string.punctuation)
