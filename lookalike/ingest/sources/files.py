"""Read the bytes of images: local files here, URIs through remote.py."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING

from lookalike.encode.fetch.limits import MAX_PER_HOST
from lookalike.encode.image_limits import MAX_BYTES
from lookalike.ingest.pipeline.diff import FileStamp
from lookalike.schema.errors import BadImage
from lookalike.schema.product import FileState

if TYPE_CHECKING:
    from lookalike.ingest.sources.remote import RemoteReader

_MTIME_RESOLUTION = 2 * 10**9
"""Nanoseconds. File systems round mtime by up to two seconds (FAT): a second write may leave it unchanged."""


def is_remote(image: str) -> bool:
    """Return whether an image is named by a URI rather than by a path."""
    return "://" in image


def stat_file(path: str) -> FileStamp:
    """Return a file's size and mtime without reading it. Raises BadImage."""
    with _raise_bad_image():
        status = os.stat(path)  # noqa: PTH116  a Path object for each of a million images is slow
        return FileStamp(status.st_size, status.st_mtime_ns)


class ImageReader:
    """Reads images; safe to use from many threads at once.

    URIs that lead to private addresses are refused unless `allow_private`. At most `per_host` images are fetched from
    one web server at once. Once `cancelled` is set, reading by http and https raises KeyboardInterrupt.
    """

    def __init__(
        self, *, allow_private: bool = False, per_host: int = MAX_PER_HOST, cancelled: threading.Event | None = None
    ) -> None:
        self._allow_private = allow_private
        self._cancelled = cancelled
        self._per_host = per_host

    def read(self, image: str) -> tuple[bytes, FileState]:
        """Read an image; return its bytes, and the state by which a later run detects a change. Raises BadImage.

        The state is taken before the bytes are read, so the next run sees a change during the read.
        """
        with _raise_bad_image():
            if is_remote(image):
                return self._remote.read(image)
            content, stamp = read_file(image)
            return content, FileState.of(content, stamp.mtime)

    def read_changed(self, image: str, known: FileState | None) -> tuple[bytes, FileState] | None:
        """Read an image; return None when it has a URI and is still in the `known` state. Raises BadImage."""
        if known is None or not is_remote(image):
            return self.read(image)
        with _raise_bad_image():
            return self._remote.read_changed(image, known)

    @cached_property
    def _remote(self) -> "RemoteReader":
        # Imported for the first URI only: it imports an HTTP client.
        from lookalike.ingest.sources.remote import RemoteReader

        return RemoteReader(allow_private=self._allow_private, per_host=self._per_host, cancelled=self._cancelled)


@cache
def image_reader(
    *, allow_private: bool = False, per_host: int = MAX_PER_HOST, cancelled: threading.Event | None = None
) -> ImageReader:
    """Return the process-wide reader for these options: its callers share connections."""
    return ImageReader(allow_private=allow_private, per_host=per_host, cancelled=cancelled)


def read_file(path: str) -> tuple[bytes, FileStamp]:
    """Read a file and its stamp; never blocks on a pipe or device. Raises OSError, and BadImage unless it is a file.

    The mtime is 0 (unknown) for a file that was written moments ago and may be written again with the same mtime.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")
        check_size(status.st_size)
        is_settled = status.st_mtime_ns < time.time_ns() - _MTIME_RESOLUTION
        # A file that grows, and some in /proc, have more bytes than their status says.
        content = file.read(MAX_BYTES + 1)
        check_size(len(content))
        return content, FileStamp(status.st_size, status.st_mtime_ns if is_settled else 0)


def check_size(size: int) -> None:
    """Raise BadImage when a file of `size` bytes is too large to read."""
    if size > MAX_BYTES:
        raise BadImage(f"the file has {size} bytes; {MAX_BYTES} is the limit")


@contextmanager
def _raise_bad_image() -> Iterator[None]:
    """Raise every error of reading an image as BadImage."""
    try:
        yield
    except BadImage:
        raise
    except ImportError as error:
        raise BadImage(f"a package that reads it is not installed: {error}") from error
    except OSError as error:
        reason = error.strerror or error.__cause__ or error
        raise BadImage(f"the file cannot be read: {reason or type(reason).__name__}") from error
    # botocore and other fsspec backends have exception trees of their own.
    except Exception as error:
        raise BadImage(f"it cannot be fetched: {error or type(error).__name__}") from error
