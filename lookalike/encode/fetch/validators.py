"""What a server says about an image's version, and the conditional request that asks whether it has changed."""

import time
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple

import httpcore2

from lookalike.encode.fetch.body import content_length, header

_SECOND = 10**9
_SETTLED = 2
"""Seconds: a file that was changed just before it was sent may change again within the same second of its date."""

_MAX_ETAG = 1024


class Validators(NamedTuple):
    """An ETag, "" without one; and when an image was last changed, in nanoseconds, 0 where that is unknown."""

    etag: str = ""
    modified: int = 0

    @classmethod
    def of(cls, response: httpcore2.Response) -> "Validators":
        """Read the headers of a response."""
        etag = header(response, b"etag") or ""
        return cls(etag if _is_etag(etag) else "", _last_modified(response))

    def request_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of a request for the image if it has changed."""
        headers = [(b"If-None-Match", self.etag.encode())] if self.etag else []
        # A server names whole seconds; a time with fractions is not from a server.
        if self.modified and not self.modified % _SECOND:
            headers.append((b"If-Modified-Since", formatdate(self.modified // _SECOND, usegmt=True).encode()))
        return headers


class KnownImage(NamedTuple):
    """What is known of an image that was fetched before: its size in bytes, and the server's validators."""

    size: int
    validators: Validators

    def is_unchanged(self, response: httpcore2.Response) -> bool:
        """Return whether a response says that the image is the same, also where the server sends it anyway."""
        if response.status == 304:
            return bool(self.validators.request_headers())
        return (
            response.status == 200
            and bool(self.validators.etag)
            and self.validators.etag == header(response, b"etag")
            and self.size == content_length(response)
            and header(response, b"content-encoding") is None
        )


def _is_etag(text: str) -> bool:
    opaque = text.removeprefix("W/")
    is_quoted = len(opaque) > 1 and opaque[0] == opaque[-1] == '"'
    return is_quoted and len(text) <= _MAX_ETAG and text.isascii() and text.isprintable()


def _last_modified(response: httpcore2.Response) -> int:
    written, sent = _parse_date(header(response, b"last-modified")), _parse_date(header(response, b"date"))
    now = int(time.time()) if sent is None else sent
    return written * _SECOND if written is not None and 0 < written <= now - _SETTLED else 0


def _parse_date(date: str | None) -> int | None:
    """Return an HTTP date in seconds since 1970; None where it cannot be read."""
    try:
        return None if date is None else int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
