"""Read images that have a URI: http and https by our own fetcher, all others by fsspec."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from lookalike.encode.fetch.address import allow_any, is_public
from lookalike.encode.fetch.errors import AddressRefused, FetchFailed, TransientFailure, describe_progress
from lookalike.encode.fetch.fetcher import Fetched, Fetcher
from lookalike.encode.fetch.limits import Cancelled, Limits
from lookalike.encode.fetch.network import AddressPolicy
from lookalike.encode.fetch.validators import KnownImage, Validators
from lookalike.encode.image_limits import MAX_BYTES
from lookalike.ingest.pipeline.diff import FileStamp
from lookalike.ingest.sources.files import check_size
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState

_ATTEMPTS = 4
_CHUNK_BYTES = 2**20
_OPTION = "--allow-private-urls"
_HOST_URIS = re.compile(
    r"(?:.*::)?(?:(?:https?|ftp|sftp|ssh|smb|webhdfs|webdav|hdfs|arrow_hdfs|jupyter|jlab|dask|dvc|root)://|reference:)",
    re.DOTALL,
)
"""URIs that make fsspec connect to the host they name, or, with a file of references, to hosts that the file names."""

Result = TypeVar("Result")
FileInfo = dict[str, Any]
"""What fsspec knows about a file; the keys differ between file systems, `size` may be None."""


class RemoteReader:
    """Reads images that have a URI; safe to use from many threads at once. Connections are reused."""

    def __init__(self, *, allow_private: bool, per_host: int, cancelled: threading.Event | None = None) -> None:
        self._allow_private = allow_private
        policy = AddressPolicy(allow_any if allow_private else is_public, trusted=True)
        self._fetcher = Fetcher(Limits(MAX_BYTES, per_host=per_host), policy, cancelled)

    def read(self, uri: str) -> tuple[bytes, FileState]:
        """Read an image. Raises BadImage and whatever fsspec raises, and KeyboardInterrupt once cancelled."""
        if _is_http(uri):
            with _raise_bad_image():
                return _unpack(self._fetcher.fetch(uri))
        return _read_file(uri, self._read_info(uri))

    def read_changed(self, uri: str, known: FileState) -> tuple[bytes, FileState] | None:
        """Read an image, or return None when it is still in the `known` state; over HTTP, one request does both.

        Raises what `read` raises.
        """
        if not _is_http(uri):
            info = self._read_info(uri)
            return None if _stamp(info) == (known.size, known.mtime) else _read_file(uri, info)
        with _raise_bad_image():
            validators = Validators(known.etag, known.mtime)
            fetched = self._fetcher.fetch_changed(uri, KnownImage(known.size, validators))
        return None if fetched is None else _unpack(fetched)

    def _read_info(self, uri: str) -> FileInfo:
        """Read the size and version of a file, not its bytes. Raises BadImage for a URI that names a host."""
        if not self._allow_private and _HOST_URIS.match(uri.lower()):
            raise BadImage(f"its URI names a host that may be private; to reach such hosts, add {_OPTION}")
        info: FileInfo = _retry(lambda: _open_filesystem(uri).info(uri))
        return info


def _is_http(uri: str) -> bool:
    return uri[:8].lower().startswith(("http://", "https://"))


@contextmanager
def _raise_bad_image() -> Iterator[None]:
    """Raise a failed fetch as BadImage that says what to do, and a cancelled one as KeyboardInterrupt."""
    try:
        yield
    except Cancelled as error:
        raise KeyboardInterrupt from error
    except FetchFailed as error:
        raise BadImage(f"{error}; {_advise(error)}") from error


def _advise(error: FetchFailed) -> str:
    if isinstance(error, AddressRefused):
        return f"to reach such addresses, add {_OPTION}"
    return "the next run tries again" if isinstance(error, TransientFailure) else "check the URL"


def _unpack(fetched: Fetched) -> tuple[bytes, FileState]:
    """Return the bytes and state of a fetched image. Raises BadImage for a web page."""
    if fetched.media_type.startswith("text/html") and fetched.content.lstrip()[:1] == b"<":
        raise BadImage("the server sent a web page (text/html) instead of an image; check the URL")
    etag, modified = fetched.validators
    return fetched.content, FileState.of(fetched.content, modified, etag)


def _read_file(uri: str, info: FileInfo) -> tuple[bytes, FileState]:
    check_size(info.get("size") or 0)
    content = _retry(lambda: _read_bytes(uri, info.get("size")))
    stamp = _stamp(info)
    return content, FileState.of(content, stamp.mtime if stamp else 0)


def _read_bytes(uri: str, size: int | None) -> bytes:
    """Read a file to its end. Raises OSError when it ends before `size` bytes."""
    filesystem = _open_filesystem(uri)
    content: bytes = filesystem.cat_file(uri) if size is not None else _read_stream(filesystem, uri)
    check_size(len(content))
    if size is not None and len(content) < size:
        raise OSError(f"incomplete: {describe_progress(len(content), size)} arrived")
    return content


def _read_stream(filesystem: Any, uri: str) -> bytes:
    """Read a file of unknown size to its end, or to just past the limit: one `read` may return less than asked."""
    content = bytearray()
    with filesystem.open(uri, "rb") as stream:
        while len(content) <= MAX_BYTES and (chunk := stream.read(_CHUNK_BYTES)):
            content += chunk
    return bytes(content)


def _open_filesystem(uri: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(uri)[0]


def _stamp(info: FileInfo) -> FileStamp | None:
    """Return the size of a file and, in place of an mtime, a hash of its ETag or date; None if either is unknown."""
    names = ("ETag", "LastModified", "Last-Modified", "mtime")
    version = next((info[name] for name in names if info.get(name)), None)
    if info.get("size") is None or version is None:
        return None
    digest = hashlib.blake2b(str(version).encode(), digest_size=8).digest()
    return FileStamp(int(info["size"]), int.from_bytes(digest) >> 1)


def _retry(operation: Callable[[], Result]) -> Result:
    """Retry transient errors; a file that is missing or forbidden stays so."""
    attempts = Retrying(
        retry=retry_if_exception(_is_transient),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    return attempts(operation)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
