"""What a server says of an image's version, and how it is asked whether that has changed."""

import time
from email.utils import formatdate, parsedate_to_datetime
from typing import NamedTuple

import httpcore2

from lookalike.encode.fetch.body import content_length, header

_SECOND = 10**9
_SETTLED = 2
"""Seconds: what was written just before it was sent may be written again within the same second of its date."""

_LONGEST_ETAG = 1024


class Validators(NamedTuple):
    """An ETag, "" without one, and when an image was last changed, in nanoseconds, 0 where that is not known."""

    etag: str = ""
    modified: int = 0

    @classmethod
    def of(cls, response: httpcore2.Response) -> "Validators":
        """Read the headers of a response."""
        etag = header(response, b"etag") or ""
        return cls(etag if _is_etag(etag) else "", _modified(response))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Ask for the image only if it is another one now."""
        asked = [(b"If-None-Match", self.etag.encode())] if self.etag else []
        # A server says whole seconds; another number is not from a server.
        if self.modified and not self.modified % _SECOND:
            asked.append((b"If-Modified-Since", formatdate(self.modified // _SECOND, usegmt=True).encode()))
        return asked


class KnownImage(NamedTuple):
    """What is known of an image that was fetched before: its bytes, and what the server said of its version."""

    size: int
    validators: Validators

    def is_answered_by(self, response: httpcore2.Response) -> bool:
        """Tell whether the server says that it is still the same, also where it sends it all the same."""
        if response.status == 304:
            return bool(self.validators.headers())
        return (
            response.status == 200
            and bool(self.validators.etag)
            and self.validators.etag == header(response, b"etag")
            and self.size == content_length(response)
            and header(response, b"content-encoding") is None
        )


def _is_etag(text: str) -> bool:
    opaque = text.removeprefix("W/")
    quoted = len(opaque) > 1 and opaque[0] == opaque[-1] == '"'
    return quoted and len(text) <= _LONGEST_ETAG and text.isascii() and text.isprintable()


def _modified(response: httpcore2.Response) -> int:
    written, sent = _seconds(header(response, b"last-modified")), _seconds(header(response, b"date"))
    now = int(time.time()) if sent is None else sent
    return written * _SECOND if written is not None and 0 < written <= now - _SETTLED else 0


def _seconds(date: str | None) -> int | None:
    try:
        return None if date is None else int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
