"""Where the bytes of pictures are: files, and whatever fsspec opens (http, https, s3, …)."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from encode.decode import MAX_BYTES
from ingest.plan import Stamp
from schema.errors import BadImage
from schema.product import FileState

_SETTLED = 2 * 10**9
"""Nanoseconds: a file may be written again within the tick of its clock, which is up to two seconds (FAT)."""

_ATTEMPTS = 4


def is_remote(image: str) -> bool:
    """Tell whether a picture is named by a URI rather than by a path."""
    return "://" in image


def glance(image: str) -> Stamp | None:
    """Look at a picture's size and time without reading it; None where nothing is said of the time.

    Raises BadImage.
    """
    with _unreadable_is_bad():
        if is_remote(image):
            return _remote_stamp(_about(image))
        status = os.stat(image)  # noqa: PTH116  a Path for each of a million pictures takes its time
        return Stamp(status.st_size, status.st_mtime_ns)


def read(image: str) -> tuple[bytes, FileState]:
    """Read a picture's bytes, and what tells later that it has changed. Raises BadImage.

    It is stamped before it is read: a change while reading is seen by the next run.
    """
    with _unreadable_is_bad():
        content, stamp = _read_remote(image) if is_remote(image) else read_file(image)
        return content, FileState.of(content, stamp.mtime)


def read_file(path: str) -> tuple[bytes, Stamp]:
    """Read a file and its stamp; never waits on a pipe or device. Raises OSError, and BadImage for what is no file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")
        _check_size(status.st_size)
        settled = status.st_mtime_ns < time.time_ns() - _SETTLED
        return file.read(), Stamp(status.st_size, status.st_mtime_ns if settled else 0)


def _read_remote(uri: str) -> tuple[bytes, Stamp]:
    about = _about(uri)
    _check_size(about.get("size") or 0)
    content: bytes = _patiently(lambda: _fetch(uri, about.get("size")))
    _check_size(len(content))
    return content, _remote_stamp(about) or Stamp(len(content), 0)


def _fetch(uri: str, size: int | None) -> bytes:
    files = _filesystem(uri)
    if size is not None:
        content: bytes = files.cat_file(uri)
        return content
    # Nobody has said how much will come.
    with files.open(uri, "rb") as stream:
        start: bytes = stream.read(MAX_BYTES + 1)
    return start


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise BadImage(f"the file has {size} bytes; {MAX_BYTES} is the limit")


def _filesystem(uri: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(uri)[0]


def _about(uri: str) -> dict[str, Any]:
    about: dict[str, Any] = _patiently(lambda: _filesystem(uri).info(uri))
    return about


def _remote_stamp(about: dict[str, Any]) -> Stamp | None:
    """Size, and in the place of a time a number for what is said of the version: an ETag, or a date as it is told."""
    told = next((about[name] for name in ("ETag", "LastModified", "Last-Modified", "mtime") if about.get(name)), None)
    if about.get("size") is None or told is None:
        return None
    digest = hashlib.blake2b(str(told).encode(), digest_size=8).digest()
    return Stamp(int(about["size"]), int.from_bytes(digest) >> 1)


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
    # fsspec makes a FileNotFoundError of whatever its question by HTTP has met.
    error = error.__cause__ or error
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return status >= 500 or status in (408, 429)
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)


@contextmanager
def _unreadable_is_bad() -> Iterator[None]:
    try:
        yield
    except BadImage:
        raise
    except ImportError as error:
        raise BadImage(f"no way to read it is installed: {error}") from error
    except OSError as error:
        reason = error.strerror or error.__cause__ or error
        raise BadImage(f"the file cannot be read: {reason or type(reason).__name__}") from error
    # aiohttp, botocore and the like have their own trees of errors.
    except Exception as error:
        raise BadImage(f"it cannot be fetched: {error or type(error).__name__}") from error
