"""A call waits for a server that is away for a moment. When the server stays away, the error names its address."""

import threading
import time
from collections.abc import Iterator

import pytest
from conftest import PLAIN, a_row
from proxy import Proxy
from pymilvus.exceptions import ParamError

from lookalike.schema.errors import StoreUnavailable
from lookalike.schema.milvus.driver import MilvusException
from lookalike.schema.milvus.retry import RetryPolicy, call_with_retry, is_transient
from lookalike.schema.milvus.store import Store


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    between = Proxy(server)
    yield between
    between.close()


def test_a_write_waits_for_a_server_that_is_away(proxy: Proxy) -> None:
    with Store.create(proxy.uri, PLAIN, collection="away") as store:
        store.upsert([a_row("before.jpg")])
        proxy.cut()
        threading.Timer(3, lambda: setattr(proxy, "connected", True)).start()

        started = time.monotonic()
        store.upsert([a_row("after.jpg")])

        assert time.monotonic() - started > 2
        assert store.count() == 2


def test_the_error_names_the_address_of_a_server_that_stays_away(proxy: Proxy) -> None:
    Store.create(proxy.uri, PLAIN, collection="gone").close()
    with Store.open(proxy.uri, collection="gone", retry=RetryPolicy(call_timeout=2, give_up_after=2)) as store:
        proxy.cut()
        with pytest.raises(StoreUnavailable, match=f"{proxy.uri} does not answer.*Is it running"):
            store.upsert([a_row("lost.jpg")])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MilvusException(code=8, message="rate limit exceeded"), True),
        (MilvusException(code=101, message="collection not loaded"), True),
        (MilvusException(code=100, message="collection not found"), False),
        (ParamError(message="wrong argument"), False),
        (ValueError("wrong argument"), False),
    ],
)
def test_errors_of_a_busy_server_are_transient(error: Exception, expected: bool) -> None:
    assert is_transient(error) is expected


def test_a_call_is_retried_until_it_succeeds_or_fails_with_a_lasting_error() -> None:
    busy = MilvusException(code=8, message="rate limit exceeded")
    missing = MilvusException(code=100, message="collection not found")

    def call_with(outcomes: list[Exception | str]) -> str:
        def call() -> str:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return call_with_retry(call, RetryPolicy(give_up_after=30))

    assert call_with([busy, busy, "done"]) == "done"
    outcomes: list[Exception | str] = [busy, missing, "done"]
    with pytest.raises(MilvusException, match="collection not found"):
        call_with(outcomes)
    assert outcomes == ["done"]
