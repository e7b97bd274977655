"""A connection to Milvus. Every call goes through `Connection.call`, which retries it and raises a LookalikeError.

What is retried, and for how long: milvus/retry.py.
"""

import atexit
import importlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import grpc

from lookalike.schema.errors import (
    BadFilter,
    DiskFull,
    LookalikeError,
    ResponseTooLarge,
    StoreUnavailable,
    StoreUnreachable,
)
from lookalike.schema.milvus.driver import MilvusClient, MilvusException
from lookalike.schema.milvus.lite.damage import ADVICE, require_intact
from lookalike.schema.milvus.lite.holder import describe_holder, forget_holder, is_locked_by_another, record_holder
from lookalike.schema.milvus.retry import DEFAULT_RETRY, RetryPolicy, call_with_retry, is_transient
from lookalike.schema.settings import is_lite

LITE_RESERVE = 320 * 2**20
"""Bytes that must be free before Milvus Lite writes: its memtable (128 MB) once as data, once as log, and a batch.

If the disk fills up during a flush, rows that were already acknowledged are lost.
"""

_CONNECT_TIMEOUT = 10.0
# A flush of Milvus Lite can take a minute.
_LITE_CALL_TIMEOUT = 600.0

# The first message is gRPC's, the second one is a Milvus server's.
_UNSUPPORTED_PATTERN = "unsupported pattern"
_TOO_LARGE_MESSAGES = ("message larger than max", "exceed the limit size")

# Two threads that write one Milvus Lite collection corrupt its log: one writer at a time in the whole process.
_LITE_WRITE_LOCK = threading.RLock()
_FIRST_METHODS = {"has_collection", "list_collections"}
_WRITE_METHODS = {"upsert", "delete", "flush"}

# All connections of a process to one Milvus Lite store share a server. Milvus Lite neither prevents two concurrent
# starts nor counts the connections.
_LITE_CONNECTIONS: Counter[str] = Counter()
_LITE_WRITE_COUNTS: Counter[str] = Counter()
_LITE_CONNECTIONS_LOCK = threading.Lock()


class Connection:
    """A connection to Milvus Lite or to a server."""

    def __init__(
        self, client: MilvusClient, uri: str, *, retry: RetryPolicy = DEFAULT_RETRY, reserve: int = LITE_RESERVE
    ) -> None:
        self.uri = uri
        self.reserve = reserve
        """Bytes that must be free before Milvus Lite writes."""
        self._retry = retry
        self.client = client
        self._is_lite = is_lite(uri)
        # The key by which Milvus Lite knows the store in this process; a later chdir does not change it.
        self._path = os.path.abspath(uri) if self._is_lite else ""  # noqa: PTH100  Path.absolute keeps `..`
        self.write_lock: AbstractContextManager[object] = _LITE_WRITE_LOCK if self._is_lite else nullcontext()
        """Hold it during every call that writes, creates or drops."""
        self._is_abandoned = False
        self._is_closed = False

    @classmethod
    def connect(cls, uri: str, token: str, retry: RetryPolicy = DEFAULT_RETRY) -> "Connection":
        """Connect, or raise StoreUnreachable. This is not retried, so that a wrong address fails soon.

        Raises StoreUnavailable for a folder of Milvus Lite that is damaged.
        """
        try:
            if not is_lite(uri):
                return cls(MilvusClient(uri, token=token, timeout=_CONNECT_TIMEOUT), uri, retry=retry)
            with _LITE_CONNECTIONS_LOCK:
                is_first = not _LITE_CONNECTIONS[os.path.abspath(uri)]  # noqa: PTH100  as above
                # While another process writes, files may come and go; then the lock says why it cannot be opened.
                if is_first and not is_locked_by_another(uri):
                    require_intact(uri)
                connection = cls(MilvusClient(uri, timeout=_CONNECT_TIMEOUT), uri)
                if is_first:
                    record_holder(uri)
                _LITE_CONNECTIONS[connection._path] += 1
                return connection
        # pymilvus parses the address with urllib, which raises ValueError.
        except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
            raise StoreUnreachable(_describe_unreachable(uri, error)) from error

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of MilvusClient, again while a server's error is transient.

        Raises StoreUnreachable when the server stays away, DiskFull when Milvus Lite cannot write, ResponseTooLarge
        when the result is larger than a message may be, and StoreUnavailable for any other error.
        """
        options["timeout"] = _LITE_CALL_TIMEOUT if self._is_lite else self._retry.call_timeout
        attempt = partial(getattr(self.client, method), *arguments, **options)
        try:
            return attempt() if self._is_lite else call_with_retry(attempt, self._retry)
        except (MilvusException, grpc.RpcError) as error:
            raise self._translate(method, error) from error
        finally:
            if self._is_lite and method in _WRITE_METHODS:
                _LITE_WRITE_COUNTS[self._path] += 1

    @property
    def write_count(self) -> int:
        """How many writes to a Milvus Lite store have ended. Only this process can write to it."""
        return _LITE_WRITE_COUNTS[self._path]

    def lite_database(self) -> Any:
        """Return the object by which Milvus Lite holds the store in this process; None when it is closed."""
        server = None if self._is_closed else _lite_server_manager()._servers.get(self._path)
        return server and server[1]

    def require_free_disk(self) -> None:
        """Raise DiskFull while Milvus Lite can still be closed without losing a row."""
        if self._is_abandoned:
            raise DiskFull(f"{self.uri} ran out of disk in this process; end this process before anything is written")
        if self._is_lite and self._free_bytes() < self.reserve:
            raise DiskFull(
                f"less than {self.reserve // 2**20} MB are free where {self.uri} is; Milvus Lite needs that to write "
                "safely. Every acknowledged row is stored: free some space and run the same command again"
            )

    def close(self) -> None:
        """Close the connection. When the last one of this process closes, other processes can open the folder."""
        if self._is_closed:
            return
        self._is_closed = True
        self.client.close()
        if self._is_lite and not self._is_abandoned:
            with _LITE_CONNECTIONS_LOCK:
                _LITE_CONNECTIONS[self._path] -= 1
                if not _LITE_CONNECTIONS[self._path]:
                    forget_holder(self._path)
                    _lite_server_manager().release_server(self._path)

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self.uri).free
        except OSError as error:
            raise StoreUnavailable(f"the store {self.uri} is gone ({error.strerror}); was it deleted?") from error

    def _translate(self, method: str, error: BaseException) -> LookalikeError:
        """Turn an error of pymilvus or gRPC into one of ours."""
        if self._is_lite and "[Errno 28]" in str(error):
            return self._abandon(error)
        if not self._is_lite and is_transient(error):
            return StoreUnreachable(_describe_unreachable(self.uri, error))
        if _UNSUPPORTED_PATTERN in str(error):
            return BadFilter(
                "this Milvus knows `like` only with a % at the end; upgrade it to 2.4 or later, or use startswith",
                public="here `like` takes only one %, at the end; use startswith, or put the % there",
            )
        if self._is_lite and method in _FIRST_METHODS and not is_transient(error):
            # Milvus Lite reads its files at the first call.
            return StoreUnavailable(f"the store {self.uri} is damaged: {_describe_cause(error).rstrip('.')}. {ADVICE}")
        is_too_large = any(message in str(error) for message in _TOO_LARGE_MESSAGES)
        kind = ResponseTooLarge if is_too_large else StoreUnavailable
        return kind(f"Milvus at {self.uri} refused {method}: {_describe_cause(error)}")

    def _abandon(self, error: BaseException) -> DiskFull:
        """Leave Milvus Lite open until this process ends: closing it would delete its log, and acknowledged rows."""
        manager = _lite_server_manager()
        atexit.unregister(manager.release_all)
        manager._servers.pop(self._path, None)
        self._is_abandoned = True
        return DiskFull(
            f"the disk of {self.uri} is full ({_describe_cause(error)}). Every acknowledged row is in its log: "
            "end this process, free some space and run the same command again"
        )


@contextmanager
def close_on_error(connection: Connection) -> Iterator[Connection]:
    """Close a connection if the block raises: Milvus Lite's folder stays locked until then."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _lite_server_manager() -> Any:
    return importlib.import_module("milvus_lite.server_manager").server_manager_instance


def _describe_unreachable(uri: str, error: BaseException) -> str:
    if is_lite(uri) and is_locked_by_another(uri):
        return describe_holder(uri)
    if is_lite(uri):
        return (
            f"Milvus Lite could not open {uri}: the folder is damaged, or no store of Milvus Lite 3. "
            f"Name another path, or restore it from a copy or an export ({_describe_cause(error)})"
        )
    return (
        f"Milvus at {uri} does not answer ({_describe_cause(error)}). Is it running, is the address right, "
        "and is MILVUS_TOKEN set if it needs one? Without a server, use --uri ./lookalike.db"
    )


def _describe_cause(error: BaseException) -> str:
    if isinstance(error, MilvusException):
        text = error.message
    else:
        text = (isinstance(error, grpc.Call) and error.details()) or error
    return " ".join(str(text).split())[:300]
