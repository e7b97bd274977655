"""Images that have a URI: http and https by our own fetcher, all others by fsspec."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from lookalike.encode.decode import MAX_BYTES
from lookalike.encode.fetch.address import allow_any, is_public
from lookalike.encode.fetch.errors import AddressRefused, FetchFailed, TransientFailure, describe_progress
from lookalike.encode.fetch.fetcher import Fetched, Fetcher
from lookalike.encode.fetch.limits import Cancelled, Limits
from lookalike.encode.fetch.network import AddressPolicy
from lookalike.encode.fetch.validators import KnownImage, Validators
from lookalike.ingest.pipeline.diff import FileStamp
from lookalike.ingest.sources.files import check_size
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState

_ATTEMPTS = 4
_PART = 2**20
_OPTION = "--allow-private-urls"
_HOSTS = re.compile(r"(?:.*::)?(https?|ftp|sftp|ssh|smb|webhdfs|webdav|hdfs|arrow_hdfs|jupyter|jlab)://", re.DOTALL)
"""URIs by which fsspec would go to whatever host they name."""


class RemoteReader:
    """Reads images that have a URI, from many threads at once; connections are kept for the next one."""

    def __init__(self, *, allow_private: bool, per_host: int, cancelled: threading.Event | None = None) -> None:
        self._allow_private = allow_private
        rules = AddressPolicy(allow_any if allow_private else is_public, trusted=True)
        self._fetcher = Fetcher(Limits(MAX_BYTES, per_host=per_host), rules, cancelled)

    def read(self, uri: str) -> tuple[bytes, FileState]:
        """Read an image. Raises BadImage, and what fsspec raises."""
        if _is_http(uri):
            with _failed_is_bad():
                return _taken(self._fetcher.fetch(uri))
        return _read_file(uri, self._about(uri))

    def read_changed(self, uri: str, known: FileState) -> tuple[bytes, FileState] | None:
        """Read an image, unless it is still the one that is known; on the web, one request does both."""
        if not _is_http(uri):
            about = self._about(uri)
            return None if _stamp(about) == (known.size, known.mtime) else _read_file(uri, about)
        with _failed_is_bad():
            validators = Validators(known.etag, known.mtime)
            fetched = self._fetcher.fetch_changed(uri, KnownImage(known.size, validators))
        return None if fetched is None else _taken(fetched)

    def _about(self, uri: str) -> dict[str, Any]:
        """Ask a file system for the size and version of a file, without reading it."""
        if not self._allow_private and _HOSTS.match(uri.lower()):
            raise BadImage(f"its URI names a host that may be private; to reach such hosts, add {_OPTION}")
        about: dict[str, Any] = _patiently(lambda: _filesystem(uri).info(uri))
        return about


def _is_http(uri: str) -> bool:
    return uri[:8].lower().startswith(("http://", "https://"))


@contextmanager
def _failed_is_bad() -> Iterator[None]:
    try:
        yield
    except Cancelled as error:
        raise KeyboardInterrupt from error
    except FetchFailed as error:
        raise BadImage(f"{error}; {_advice(error)}") from error


def _advice(error: FetchFailed) -> str:
    if isinstance(error, AddressRefused):
        return f"to reach such addresses, add {_OPTION}"
    return "the next run tries again" if isinstance(error, TransientFailure) else "check the URL"


def _taken(fetched: Fetched) -> tuple[bytes, FileState]:
    if fetched.media_type.startswith("text/html") and fetched.content.lstrip()[:1] == b"<":
        raise BadImage("the server sent a web page (text/html) instead of an image; check the URL")
    etag, modified = fetched.validators
    return fetched.content, FileState.of(fetched.content, modified, etag)


def _read_file(uri: str, about: dict[str, Any]) -> tuple[bytes, FileState]:
    check_size(about.get("size") or 0)
    content: bytes = _patiently(lambda: _read_whole(uri, about.get("size")))
    stamp = _stamp(about)
    return content, FileState.of(content, stamp.mtime if stamp else 0)


def _read_whole(uri: str, size: int | None) -> bytes:
    """Read a file to its end; what ends before the size that was told raises OSError."""
    files = _filesystem(uri)
    content: bytes = files.cat_file(uri) if size is not None else _read_stream(files, uri)
    check_size(len(content))
    if size is not None and len(content) < size:
        raise OSError(f"incomplete: {describe_progress(len(content), size)} arrived")
    return content


def _read_stream(files: Any, uri: str) -> bytes:
    """Read what is of unknown size, to its end or to just past the limit: one `read` may return less than there is."""
    content = bytearray()
    with files.open(uri, "rb") as stream:
        while len(content) <= MAX_BYTES and (part := stream.read(_PART)):
            content += part
    return bytes(content)


def _filesystem(uri: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(uri)[0]


def _stamp(about: dict[str, Any]) -> FileStamp | None:
    """Size, and in the place of a time a number for what is said of the version: an ETag, or a date as it is told."""
    told = next((about[name] for name in ("ETag", "LastModified", "Last-Modified", "mtime") if about.get(name)), None)
    if about.get("size") is None or told is None:
        return None
    digest = hashlib.blake2b(str(told).encode(), digest_size=8).digest()
    return FileStamp(int(about["size"]), int.from_bytes(digest) >> 1)


def _patiently(ask: Callable[[], Any]) -> Any:
    """Ask again after a hiccup of the network; what is not there, or not allowed, stays so."""
    attempts = Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    return attempts(ask)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
