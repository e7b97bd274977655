"""Reads the body of a response: whole, decoded, and within the limit. A body that ends early is an error."""

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
    """Read a body to its end. Raises IncompleteBody, FetchTimeout, FetchFailed for more than `max_bytes`."""
    promised = content_length(response)
    _check_size(promised or 0, max_bytes)
    decode, is_complete = _choose_decoder(response, max_bytes)
    body, arrived = bytearray(), 0
    with _errors_with_progress(lambda: arrived, promised):
        for chunk in response.iter_stream():
            arrived += len(chunk)
            body += decode(chunk)
            _check_size(max(arrived, len(body)), max_bytes)
    if not is_complete():
        raise IncompleteBody.of(arrived, promised)
    return bytes(body)


def header(response: httpcore2.Response, name: bytes) -> str | None:
    """Return the value of a header, the first one where it is repeated."""
    return next((value.decode("utf-8", "replace") for key, value in response.headers if key.lower() == name), None)


def content_length(response: httpcore2.Response) -> int | None:
    """Return how many bytes the server promises; None where it marks their end in another way."""
    length = header(response, b"content-length")
    return int(length) if length is not None and header(response, b"transfer-encoding") is None else None


@contextmanager
def _errors_with_progress(arrived: Callable[[], int], promised: int | None) -> Iterator[None]:
    """Add to an error how many bytes arrived before it."""
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


def _choose_decoder(
    response: httpcore2.Response, max_bytes: int
) -> tuple[Callable[[bytes], bytes], Callable[[], bool]]:
    """Return what undoes the content encoding of a response, and what says whether its end has arrived."""
    encoding = (header(response, b"content-encoding") or "").strip().lower()
    if encoding in _PLAIN:
        return bytes, lambda: True
    if encoding not in _COMPRESSED:
        raise FetchFailed(
            f"the server encoded it as {encoding[:40]!r}, although asked not to; only gzip and deflate are decoded"
        )
    inflate = _Inflate(max_bytes)
    return inflate.decode, lambda: inflate.is_complete


class _Inflate:
    """Undoes gzip and deflate, a chunk at a time; gives at most one byte more than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._bytes_left = max_bytes + 1
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)

    @property
    def is_complete(self) -> bool:
        return self._member.eof

    def decode(self, chunk: bytes) -> bytes:
        decoded = bytearray()
        while chunk and self._bytes_left > len(decoded):
            # A file may be several gzip files after each other.
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                decoded += self._member.decompress(chunk, self._bytes_left - len(decoded))
            except zlib.error as error:
                raise FetchFailed("the server said that it is gzip, and it is not") from error
            chunk = self._member.unconsumed_tail or self._member.unused_data
        self._bytes_left -= len(decoded)
        return bytes(decoded)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise FetchFailed(f"it has more than {max_bytes} bytes, which is the limit")
