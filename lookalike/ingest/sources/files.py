"""Where the bytes of images are: files, and what has a URI."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING

from lookalike.encode.decode import MAX_BYTES
from lookalike.encode.fetch.limits import MAX_PER_HOST
from lookalike.ingest.pipeline.diff import FileStamp
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState

if TYPE_CHECKING:
    from lookalike.ingest.sources.remote import RemoteReader

_SETTLED = 2 * 10**9
"""Nanoseconds: a file may be written again within the tick of its clock, which is up to two seconds (FAT)."""


def is_remote(image: str) -> bool:
    """Tell whether an image is named by a URI rather than by a path."""
    return "://" in image


def stat_file(path: str) -> FileStamp:
    """Look at a file's size and time without reading it. Raises BadImage."""
    with _unreadable_is_bad():
        status = os.stat(path)  # noqa: PTH116  a Path for each of a million images takes its time
        return FileStamp(status.st_size, status.st_mtime_ns)


class ImageReader:
    """Reads images, from many threads at once; what reads those that have a URI is loaded when the first one comes.

    URIs that lead to private addresses are refused unless `allow_private`; a web server is asked for `per_host` images
    at once, at most. Once `cancelled` is set, reading by http and https raises KeyboardInterrupt.
    """

    def __init__(
        self, *, allow_private: bool = False, per_host: int = MAX_PER_HOST, cancelled: threading.Event | None = None
    ) -> None:
        self._allow_private = allow_private
        self._cancelled = cancelled
        self._per_host = per_host

    def read(self, image: str) -> tuple[bytes, FileState]:
        """Read an image's bytes, and what tells later that it has changed. Raises BadImage.

        It is stamped before it is read: a change while reading is seen by the next run.
        """
        with _unreadable_is_bad():
            if is_remote(image):
                return self._remote.read(image)
            content, stamp = read_file(image)
            return content, FileState.of(content, stamp.mtime)

    def read_changed(self, image: str, known: FileState | None) -> tuple[bytes, FileState] | None:
        """Read an image; None when it has a URI, and is still the one that is known. Raises BadImage."""
        if known is None or not is_remote(image):
            return self.read(image)
        with _unreadable_is_bad():
            return self._remote.read_changed(image, known)

    @cached_property
    def _remote(self) -> "RemoteReader":
        from lookalike.ingest.sources.remote import RemoteReader  # with it comes an HTTP client

        return RemoteReader(allow_private=self._allow_private, per_host=self._per_host, cancelled=self._cancelled)


@cache
def image_reader(
    *, allow_private: bool = False, per_host: int = MAX_PER_HOST, cancelled: threading.Event | None = None
) -> ImageReader:
    """The reader of this process: whoever reads shares its connections."""
    return ImageReader(allow_private=allow_private, per_host=per_host, cancelled=cancelled)


def read_file(path: str) -> tuple[bytes, FileStamp]:
    """Read a file and its stamp; never waits on a pipe or device. Raises OSError, and BadImage for what is no file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")
        check_size(status.st_size)
        settled = status.st_mtime_ns < time.time_ns() - _SETTLED
        return file.read(), FileStamp(status.st_size, status.st_mtime_ns if settled else 0)


def check_size(size: int) -> None:
    """Raise BadImage for a file that is too large to be read."""
    if size > MAX_BYTES:
        raise BadImage(f"the file has {size} bytes; {MAX_BYTES} is the limit")


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
    # botocore and the like have their own trees of errors.
    except Exception as error:
        raise BadImage(f"it cannot be fetched: {error or type(error).__name__}") from error
