"""Which errors of a Milvus server are retried, and for how long.

RetryPolicy       the timeout of one call, and for how long a call is retried
RETRIED_STATUS    the gRPC statuses that are retried
RETRIED_CODES     the Milvus error codes that are retried
is_transient      whether one error is retried
call_with_retry   the loop

Milvus Lite is not retried: it runs in this process, so a second call would fail in the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from lookalike.schema.milvus.driver import MilvusException

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one call may take, and how long after the first call a failing one is given up, both in seconds."""

    call_timeout: float = 60.0
    give_up_after: float = 120.0


DEFAULT_RETRY = RetryPolicy()

RETRIED_STATUS = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED},
)

RETRIED_CODES = frozenset(
    {
        1,  # service not ready
        2,  # service unavailable
        3,  # memory limit exceeded
        4,  # request limit exceeded
        8,  # rate limit exceeded
        101,  # collection not loaded yet
        103,  # collection not fully loaded yet
    }
)
"""What a server that is starting, recovering or busy returns."""

_FIRST_WAIT = 0.2
_MAX_WAIT = 10.0


def is_transient(error: BaseException) -> bool:
    """Return whether the same call to a server may succeed a moment later."""
    if isinstance(error, grpc.RpcError):
        return error.code() in RETRIED_STATUS
    # pymilvus raises subclasses of MilvusException for invalid arguments: calling again does not help.
    if not isinstance(error, MilvusException) or type(error) is not MilvusException:
        return False
    return error.code in RETRIED_CODES or error.code in RETRIED_STATUS


def call_with_retry(call: Callable[[], Result], policy: RetryPolicy) -> Result:
    """Call until it succeeds, fails with a lasting error, or `policy.give_up_after` has passed; raise the last error.

    Waits between calls grow at random from 0.2 s to 10 s at most.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=_FIRST_WAIT, max=_MAX_WAIT),
        stop=stop_after_delay(policy.give_up_after),
        reraise=True,
    )
    return retrying(call)
