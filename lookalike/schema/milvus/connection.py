"""The wire to Milvus: every call goes through here, is retried if that can help, and fails in our words."""

import atexit
import importlib
import os
import shutil
import threading
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from lookalike.schema.errors import BadFilter, DiskFull, ResponseTooLarge, StoreUnavailable, StoreUnreachable
from lookalike.schema.milvus.driver import MilvusClient, MilvusException
from lookalike.schema.settings import is_lite


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many seconds one call to a server may take, and for how long one is tried again while the server is away."""

    call: float = 60.0
    retry: float = 120.0


DEFAULT_RETRY = RetryPolicy()

LITE_RESERVE = 320 * 2**20
"""Bytes that must be free before Milvus Lite writes: its memtable (128 MB) once as data, once as log, and a batch.

A disk that fills up in the middle of its flush costs rows that were already acknowledged.
"""

_CONNECT_TIMEOUT = 10.0
# Milvus Lite answers in its own time: a flush can take a minute.
_LITE_CALL_TIMEOUT = 600.0
_RETRIED_STATUS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}
# Of a server that is starting, recovering or busy: not ready, unavailable, memory, request and rate limit,
# collection not (fully) loaded yet.
_RETRIED_CODES = {1, 2, 3, 4, 8, 101, 103}

# Of a server between its parts, and of a part of it.
_UNSUPPORTED_PATTERN = "unsupported pattern"
_TOO_MUCH = ("message larger than max", "exceed the limit size")

# Two threads that write one Milvus Lite collection corrupt its log: one writer at a time in the whole process.
_LITE_WRITER = threading.RLock()
_WRITES = {"upsert", "delete", "flush"}

# Within a process all connections to one Milvus Lite store share a server, which neither starts twice at once nor
# knows who still needs it.
_LITE_USERS: Counter[str] = Counter()
_LITE_CHANGES: Counter[str] = Counter()
_LITE_USERS_LOCK = threading.Lock()


class Connection:
    """A connection to Milvus Lite or to a server."""

    def __init__(
        self, client: MilvusClient, uri: str, *, patience: RetryPolicy = DEFAULT_RETRY, reserve: int = LITE_RESERVE
    ) -> None:
        self.uri = uri
        self.reserve = reserve
        self._patience = patience
        self._client = client
        self._lite = is_lite(uri)
        # What Milvus Lite calls a store inside this process; a later chdir does not change that.
        self._path = os.path.abspath(uri) if self._lite else ""  # noqa: PTH100  Path.absolute keeps `..`
        self.writing: AbstractContextManager[object] = _LITE_WRITER if self._lite else nullcontext()
        """Hold it around whatever writes, makes or drops."""
        self._abandoned = False
        self._closed = False

    @classmethod
    def connect(cls, uri: str, token: str, patience: RetryPolicy = DEFAULT_RETRY) -> "Connection":
        """Reach Milvus, or raise StoreUnreachable at once: nothing is under way that would be worth waiting for."""
        try:
            if not is_lite(uri):
                return cls(MilvusClient(uri, token=token, timeout=_CONNECT_TIMEOUT), uri, patience=patience)
            with _LITE_USERS_LOCK:
                wire = cls(MilvusClient(uri, timeout=_CONNECT_TIMEOUT), uri)
                _LITE_USERS[wire._path] += 1
                return wire
        # pymilvus takes an address apart with urllib, whose complaint is a ValueError.
        except (MilvusException, grpc.RpcError, OSError, ValueError) as error:
            raise StoreUnreachable(_unreachable(uri, error)) from error

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of MilvusClient. Raises StoreUnreachable, StoreUnavailable, DiskFull where nothing may be written."""
        options["timeout"] = _LITE_CALL_TIMEOUT if self._lite else self._patience.call
        attempts = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            stop=stop_after_delay(self._patience.retry),
            reraise=True,
        )
        try:
            return attempts(getattr(self._client, method), *arguments, **options)
        except (MilvusException, grpc.RpcError) as error:
            if self._lite and "[Errno 28]" in str(error):
                raise self._full(error) from error
            if self._may_pass(error):
                raise StoreUnreachable(_unreachable(self.uri, error)) from error
            if _UNSUPPORTED_PATTERN in str(error):
                raise BadFilter(
                    "this Milvus knows `like` only with a % at the end; upgrade it to 2.4 or later, or use startswith"
                ) from error
            kind = ResponseTooLarge if any(sign in str(error) for sign in _TOO_MUCH) else StoreUnavailable
            raise kind(f"Milvus at {self.uri} refused {method}: {_reason(error)}") from error
        finally:
            if self._lite and method in _WRITES:
                _LITE_CHANGES[self._path] += 1

    @property
    def changes(self) -> int:
        """How often a Milvus Lite store was written to in this process, and so at all."""
        return _LITE_CHANGES[self._path]

    def lite_database(self) -> Any:
        """What Milvus Lite, which runs in this process, keeps of the store; None when it is closed."""
        server = None if self._closed else _lite_servers()._servers.get(self._path)
        return server and server[1]

    def check_room(self) -> None:
        """Raise DiskFull while Milvus Lite can still be closed without losing anything."""
        if self._abandoned:
            raise DiskFull(f"{self.uri} ran out of disk in this process; end it before anything else is written")
        if self._lite and self._free_bytes() < self.reserve:
            raise DiskFull(
                f"less than {self.reserve // 2**20} MB are free where {self.uri} is; Milvus Lite needs that to write "
                "safely. Everything acknowledged is kept: free some space and run the same command again"
            )

    def close(self) -> None:
        """Close the connection; the last one in this process gives Milvus Lite's folder free for others."""
        if self._closed:
            return
        self._closed = True
        self._client.close()
        if self._lite and not self._abandoned:
            with _LITE_USERS_LOCK:
                _LITE_USERS[self._path] -= 1
                if not _LITE_USERS[self._path]:
                    _lite_servers().release_server(self._path)

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self.uri).free
        except OSError as error:
            raise StoreUnavailable(f"the store {self.uri} is gone ({error.strerror}); was it deleted?") from error

    def _may_pass(self, error: BaseException) -> bool:
        if self._lite:
            return False
        if isinstance(error, grpc.RpcError):
            return error.code() in _RETRIED_STATUS
        # Its subclasses are pymilvus's own complaints about what we gave it; they stay what they are.
        if not isinstance(error, MilvusException) or type(error) is not MilvusException:
            return False
        return error.code in _RETRIED_CODES | _RETRIED_STATUS

    def _full(self, error: BaseException) -> DiskFull:
        """Leave Milvus Lite as a killed process would: to close it now would delete its log, and acknowledged rows."""
        servers = _lite_servers()
        atexit.unregister(servers.release_all)
        servers._servers.pop(self._path, None)
        self._abandoned = True
        return DiskFull(
            f"the disk of {self.uri} is full ({_reason(error)}). Everything acknowledged is in its log: "
            "end this process, free some space and run the same command again"
        )


def _lite_servers() -> Any:
    return importlib.import_module("milvus_lite.server_manager").server_manager_instance


def _unreachable(uri: str, error: BaseException) -> str:
    if is_lite(uri):
        return (
            f"Milvus Lite could not open {uri}: another process has it open, or the folder is damaged. "
            f"Let the other one end, or run a Milvus server and set MILVUS_URI ({_reason(error)})"
        )
    return (
        f"Milvus at {uri} does not answer ({_reason(error)}). Is it running, is the address right, "
        "and MILVUS_TOKEN if it asks for one? Without a server, take --uri ./lookalike.db"
    )


def _reason(error: BaseException) -> str:
    text = error.message if isinstance(error, MilvusException) else getattr(error, "details", lambda: None)() or error
    return " ".join(str(text).split())[:300]
