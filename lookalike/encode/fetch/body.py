"""The body of a response: whole, decoded, and within the limit; what ends early is an error, never an image."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpcore2

from lookalike.encode.fetch.errors import FetchFailed, IncompleteBody, describe_progress
from lookalike.encode.fetch.limits import FetchTimeout

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_COMPRESSED = ("gzip", "x-gzip", "deflate")
_PLAIN = ("", "identity")


def read_body(response: httpcore2.Response, max_bytes: int) -> bytes:
    """Read a body to its end. Raises Incomplete, FetchTimeout, FetchFailed where it has more than `max_bytes`."""
    promised = content_length(response)
    _check_size(promised or 0, max_bytes)
    decode, is_whole = _decoder(response, max_bytes)
    body, arrived = bytearray(), 0
    with _cut_short(lambda: arrived, promised):
        for part in response.iter_stream():
            arrived += len(part)
            body += decode(part)
            _check_size(max(arrived, len(body)), max_bytes)
    if not is_whole():
        raise IncompleteBody.of(arrived, promised)
    return bytes(body)


def header(response: httpcore2.Response, name: bytes) -> str | None:
    """The value of a header, the first where it is repeated."""
    return next((value.decode("utf-8", "replace") for key, value in response.headers if key.lower() == name), None)


def content_length(response: httpcore2.Response) -> int | None:
    """How many bytes the server promises; None where it only shows their end."""
    told = header(response, b"content-length")
    return int(told) if told is not None and header(response, b"transfer-encoding") is None else None


@contextmanager
def _cut_short(arrived: Callable[[], int], promised: int | None) -> Iterator[None]:
    try:
        yield
    except FetchTimeout as error:
        raise FetchTimeout(f"{describe_progress(arrived(), promised)} arrived") from error
    except httpcore2.TimeoutException as error:
        raise IncompleteBody(
            f"incomplete: {describe_progress(arrived(), promised)} arrived, then nothing more"
        ) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise IncompleteBody.of(arrived(), promised) from error


def _decoder(response: httpcore2.Response, max_bytes: int) -> tuple[Callable[[bytes], bytes], Callable[[], bool]]:
    """What undoes the encoding that the server has put on its own, and tells whether its end was met."""
    encoding = (header(response, b"content-encoding") or "").strip().lower()
    if encoding in _PLAIN:
        return bytes, lambda: True
    if encoding not in _COMPRESSED:
        raise FetchFailed(f"the server encoded it as {encoding[:40]!r}, although asked not to; only gzip is decoded")
    inflate = _Inflate(max_bytes)
    return inflate.decode, lambda: inflate.whole


class _Inflate:
    """Undoes gzip and deflate, a part at a time, and never to more than `max_bytes` and a bit."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes + 1
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)

    @property
    def whole(self) -> bool:
        return self._member.eof

    def decode(self, part: bytes) -> bytes:
        decoded = bytearray()
        while part and self._room > len(decoded):
            # A file may be several gzip files after each other.
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                decoded += self._member.decompress(part, self._room - len(decoded))
            except zlib.error as error:
                raise FetchFailed("the server said that it is gzip, and it is not") from error
            part = self._member.unconsumed_tail or self._member.unused_data
        self._room -= len(decoded)
        return bytes(decoded)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise FetchFailed(f"it has more than {max_bytes} bytes, which is the limit")
