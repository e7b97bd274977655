"""The clients against the real service: queries, products, errors and retries."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
from conftest import bring
from serving import listening, service_for

from lookalike.encode.registry import load_encoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import BadQuery, BadSettings, LookalikeError
from lookalike.schema.milvus.store import Store
from lookalike.serve.api.schemas import Problem, SearchOut
from lookalike.serve.client import AsyncClient, Client, ServiceError, ServiceUnreachable

KEY = "writer-0123456789"
MUG = "red-plain-mug"
STRANGE_IDS = ["a/b", "../shirt", "..", "50% off?", "täglich #1", "x/similar/y", " ", "a+b&c=d", "🍵"]


class _BlockingAdapter:
    """Calls an AsyncClient from a test that is no coroutine."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._runner.run(getattr(self._client, name)(*arguments, **options))

    def __enter__(self) -> "_BlockingAdapter":
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.__aexit__(*error))
        self._runner.close()


@pytest.fixture(scope="module", params=[Client, _BlockingAdapter], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Client]:
    """Both clients, one after the other."""
    return cast("Callable[..., Client]", request.param)


@pytest.fixture(scope="module")
def address(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    encoder, folder = load_encoder("pixels"), tmp_path_factory.mktemp("client")
    with Store.create(str(folder / "client.db"), encoder.fingerprint) as store:
        bring(FolderSource(catalogue / "photos", Layout("{category}/{product_id}/{image}")).images(), encoder, store)
        service = service_for(store, encoder, folder / "uploads", keys=f"reader-0123456789, {KEY}:write")
        with listening(service) as address:
            yield address


@pytest.fixture(scope="module")
def client(connect: Callable[..., Client], address: str) -> Iterator[Client]:
    with connect(address, key=KEY, retries=0) as client:
        yield client


@pytest.fixture
def photo(catalogue: Path) -> Path:
    return catalogue / "queries" / f"{MUG}.jpg"


def test_an_image_may_be_a_path_or_bytes(client: Client, photo: Path) -> None:
    result = client.search(image=photo, limit=3)
    assert isinstance(result, SearchOut)
    assert result.hits == client.search(image=photo.read_bytes(), limit=3).hits
    assert len(set(_ids(result))) == 3


def test_an_image_at_the_top_level_and_in_like_gives_the_same_result(client: Client, photo: Path) -> None:
    top = client.search(image=photo, where={"category": "mug"}, per_product=2, fields=["category"])
    assert {hit.metadata["category"] for hit in top.hits} == {"mug"}
    assert all(len(hit.images) == 2 for hit in top.hits)
    like = client.search(like=[{"image": photo, "weight": 2.0}], where={"category": "mug"}, per_product=2)
    assert _ids(like) == _ids(top)


def test_a_query_of_image_vector_and_product(client: Client, photo: Path) -> None:
    vector = np.ones(768, dtype=np.float32)
    result = client.search(image=photo, like=[{"vector": vector.tolist()}], unlike=[{"product_id": MUG}], offset=1)
    assert MUG not in _ids(result)


def test_a_vector_may_be_a_numpy_array(client: Client) -> None:
    vector: Any = np.ones(768, dtype=np.float32)
    assert client.search(vector=vector).hits == client.search(vector=vector.tolist()).hits


def test_several_queries_get_results_or_problems(client: Client, photo: Path) -> None:
    by_photo, unknown, by_id = client.search_many([{"image": photo}, {"product_id": "no"}, {"product_id": MUG}])
    assert isinstance(by_photo, SearchOut)
    assert _ids(by_photo) == _ids(client.search(image=photo))
    assert isinstance(unknown, Problem)
    assert unknown.status == 404
    assert isinstance(by_id, SearchOut)


def test_similar_products(client: Client) -> None:
    result = client.similar(MUG, 4, {"category": {"in": ["mug", "hat"]}})
    assert len(result.hits) == 4
    assert result.hits == client.search(product_id=MUG, limit=4, where={"category": {"in": ["mug", "hat"]}}).hits
    assert len(client.similar(MUG).hits) == 10


def test_products_are_written_read_and_removed(client: Client, photo: Path) -> None:
    assert client.put_product("new", [photo, photo.read_bytes()], {"price": 3}).new == 1
    assert client.put_product("new", None, {"price": 4}).metadata == 1
    product = client.get_product("new")
    assert (product.metadata, len(product.images)) == ({"price": 4}, 1)
    assert client.get_image(product.images[0].image_id) == photo.read_bytes()
    assert client.get_image(product.images[0].image_id, 64) != photo.read_bytes()
    client.delete_product("new")
    with pytest.raises(ServiceError, match=r"^404 Not Found: no product 'new'"):
        client.get_product("new")


@pytest.mark.parametrize("product_id", STRANGE_IDS)
def test_any_product_id_can_be_addressed(client: Client, photo: Path, product_id: str) -> None:
    assert client.put_product(product_id, [photo], {}).product_id == product_id
    assert client.get_product(product_id).product_id == product_id
    assert product_id not in _ids(client.similar(product_id))
    client.delete_product(product_id)


def test_an_empty_list_of_images_is_refused(client: Client) -> None:
    with pytest.raises(ServiceError, match="images: List should have at least 1 item"):
        client.put_product(MUG, [], {})


def test_a_service_that_can_search_is_ready(client: Client) -> None:
    assert client.is_ready() is True


def test_an_error_names_status_detail_and_request_id(client: Client) -> None:
    with pytest.raises(ServiceError, match=r"^422 Unprocessable \w+: .*limit: .*\(request [0-9a-f]{16}\)$") as caught:
        client.search(product_id=MUG, limit=0)
    assert isinstance(caught.value, LookalikeError)
    assert caught.value.problem.status == 422
    assert caught.value.problem.errors[0].at == "limit"


def test_a_query_that_cannot_be_sent_raises_before_it_is_sent(client: Client, tmp_path: Path) -> None:
    with pytest.raises(BadQuery, match=r"the image '.*no\.jpg' cannot be read: No such file"):
        client.search(image=tmp_path / "no.jpg")
    with pytest.raises(BadQuery, match="cannot be sent: set is not known to JSON"):
        client.search(product_id=MUG, where={"category": {"mug"}})


def test_the_api_key_decides_who_reads_and_writes(connect: Callable[..., Client], address: str, photo: Path) -> None:
    with connect(address) as anonymous, pytest.raises(ServiceError, match=r"^401 .*Bearer KEY"):
        anonymous.get_product(MUG)
    with connect(address, key="reader-0123456789") as reader:
        assert reader.get_product(MUG).product_id == MUG
        with pytest.raises(ServiceError, match=r"^403 .*may read, but not write"):
            reader.put_product(MUG, [photo], {})


def test_an_address_without_a_service_raises(connect: Callable[..., Client]) -> None:
    with (
        connect("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:9 does not answer \(.+\)\. Is it running"),
    ):
        client.is_ready()
    with pytest.raises(BadSettings, match="'localhost:8000' is no http:// or https:// URL"):
        connect("localhost:8000")


def _ids(result: SearchOut) -> list[str]:
    return [hit.product_id for hit in result.hits]


Reply = tuple[int, dict[str, str], bytes]
BUSY = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "unavailable",
    "request_id": "r1",
}
UNAVAILABLE: Reply = (503, {"Retry-After": "1"}, json.dumps(BUSY).encode())
READY: Reply = (200, {}, b'{"hits": [], "took_ms": 1, "next_offset": null}')


class _ScriptedServer(NamedTuple):
    """A server that sends prepared replies and records the bodies of requests."""

    address: str
    bodies: list[bytes]


@contextmanager
def serve_replies(*replies: Reply, method: str = "POST") -> Iterator[_ScriptedServer]:
    """Send one reply after the other, then close each connection without a reply."""
    left, bodies = list(replies), []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            if not left:
                return
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object, **__: object) -> None:
            """Write no log."""

    setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield _ScriptedServer(f"http://127.0.0.1:{server.server_port}", bodies)
        finally:
            server.shutdown()


def test_a_transient_failure_is_retried_after_the_retry_after(connect: Callable[..., Client]) -> None:
    with serve_replies(UNAVAILABLE, READY) as server, connect(server.address) as client:
        started = monotonic()
        assert client.search(image=b"image").hits == []
        assert monotonic() - started >= 1
    assert [b"image" in body for body in server.bodies] == [True, True]


@pytest.mark.parametrize(
    ("reply", "tries"),
    [
        ((503, {"Retry-After": "0"}, UNAVAILABLE[2]), 2),
        ((429, {}, b"{}"), 2),
        ((504, {}, b"{}"), 2),
        ((503, {"Retry-After": "3600"}, UNAVAILABLE[2]), 1),
        ((500, {}, b"{}"), 1),
        ((404, {}, b"{}"), 1),
    ],
    ids=["503", "429", "504", "503 for an hour", "500", "404"],
)
def test_which_statuses_are_retried(connect: Callable[..., Client], reply: Reply, tries: int) -> None:
    with serve_replies(*[reply] * 4) as server, connect(server.address, retries=1) as client:
        with pytest.raises(ServiceError, match=f"^{reply[0]} "):
            client.search(product_id=MUG)
        assert len(server.bodies) == tries


def test_a_broken_connection_is_retried(connect: Callable[..., Client]) -> None:
    with serve_replies() as server, connect(server.address, retries=2) as client:
        with pytest.raises(ServiceUnreachable, match="does not answer"):
            client.search(product_id=MUG)
        assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((502, {}, b"<h1>Bad Gateway</h1>"), r"^502 Bad Gateway: http://.*/search answered: <h1>Bad Gateway</h1>$"),
        ((302, {"Location": "/login"}, b""), r"^302 Found: http://.*/search answered: nothing$"),
        (
            (200, {}, b"<html>"),
            r"^200 OK: http://.*/search did not send a response of lookalike; is the address right\?",
        ),
    ],
    ids=["a proxy", "a redirect", "another site"],
)
def test_a_response_of_another_server_is_named(connect: Callable[..., Client], reply: Reply, message: str) -> None:
    with serve_replies(reply) as server, connect(server.address) as client, pytest.raises(ServiceError, match=message):
        client.search(product_id=MUG)


def test_a_dry_run_is_not_sent_to_a_service_that_would_write(connect: Callable[..., Client]) -> None:
    """A service of an older version ignores the parameter."""
    old: Reply = (200, {}, b'{"info": {"version": "0"}, "paths": {"/products/{product_id}": {"delete": {}}}}')
    with serve_replies(old, old, method="GET") as server, connect(server.address, retries=0) as sender:
        with pytest.raises(ServiceError, match="is of an older version and knows no dry run; nothing was sent"):
            sender.delete_product("p", dry_run=True)
        with pytest.raises(ServiceError, match="is of an older version and knows no dry run; nothing was sent"):
            sender.put_product("p", None, {}, dry_run=True)


def test_the_client_imports_no_library_of_the_service() -> None:
    heavy = ["fastapi", "starlette", "uvicorn", "jinja2", "structlog", "prometheus_client", "click"]
    heavy += ["torch", "onnxruntime", "pymilvus", "milvus_lite", "grpc", "numpy", "PIL"]
    script = f"import sys, lookalike.serve.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"[]"
