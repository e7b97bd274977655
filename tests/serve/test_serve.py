"""The HTTP API: search, products, images, metrics, and input that is hostile or heavy."""

import base64
import io
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
from conftest import NewStore, bring
from PIL import Image
from serving import client, draw_noise, listening, service_for

from lookalike.encode.encoder import Encoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.versions import Versions
from lookalike.search.finder import Finder
from lookalike.search.query import Part, Query
from lookalike.serve.service import Service


class Shop(NamedTuple):
    """The sample catalogue behind the service."""

    http: httpx2.Client
    service: Service
    finder: Finder
    folder: Path


@pytest.fixture(scope="module")
def shop(
    new_store: NewStore, encoder: Encoder, catalogue: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    store = new_store(encoder.fingerprint)
    source = FolderSource(catalogue / "photos", Layout("{category}/{product_id}/{image}"))
    bring(source.images(), encoder, store, batch_size=32)
    service = service_for(store, encoder, tmp_path_factory.mktemp("uploads"), lanes=2)
    with listening(service) as address, client(address) as http:
        yield Shop(http, service, Finder(store, lambda: encoder), catalogue)


@pytest.fixture(scope="module")
def mug(catalogue: Path) -> bytes:
    return (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()


def ids(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [hit["product_id"] for hit in response.json()["hits"]]


def to_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


# Search.


def test_search_over_http_returns_what_the_finder_returns(shop: Shop, mug: bytes) -> None:
    query = Query(
        like=(Part(image=mug, weight=2), Part(product_id="blue-checked-shirt")),
        unlike=(Part(product_id="red-checked-bag"),),
        limit=7,
    )
    body = {
        "like": [{"image": to_base64(mug), "weight": 2}, {"product_id": "blue-checked-shirt"}],
        "unlike": [{"product_id": "red-checked-bag"}],
        "limit": 7,
    }
    response = shop.http.post("/search", json=body)
    expected = shop.finder.find(query)
    assert ids(response) == [hit.product_id for hit in expected.hits]
    assert [hit["score"] for hit in response.json()["hits"]] == pytest.approx(
        [hit.score for hit in expected.hits], abs=1e-4
    )
    assert response.json()["next_offset"] == 7
    assert str(shop.folder) not in response.text, "the response has the path of a file"


def test_a_form_may_hold_files_and_a_query(shop: Shop, mug: bytes) -> None:
    query = {"where": {"category": {"in": ["mug", "bag"]}}, "limit": 3, "per_product": 2, "fields": ["category"]}
    response = shop.http.post("/search", files={"image": mug}, data={"query": json.dumps(query)})
    assert ids(response)[0] == "red-plain-mug"
    assert [len(hit["images"]) for hit in response.json()["hits"]] == [2, 2, 2]
    two = shop.http.post("/search", files=[("image", mug), ("image", draw_noise((40, 40)))])
    assert len(ids(two)) == 10
    unreadable = shop.http.post("/search", files=[("image", mug), ("image", b"text")])
    assert unreadable.status_code == 422
    assert "image 2 of 2: not an image" in unreadable.text


def test_queries_by_image_product_stored_image_and_vector(shop: Shop, mug: bytes) -> None:
    first = shop.http.get("/products/red-plain-mug").json()["images"][0]
    vector = [1.0] + [0.0] * (shop.service.live.version.store.fingerprint.dim - 1)
    for body in ({"image": to_base64(mug)}, {"product_id": "red-plain-mug"}, {"image_id": first["image_id"]}):
        assert ids(shop.http.post("/search", json={**body, "where": {"category": "mug"}, "limit": 2}))
    assert len(ids(shop.http.post("/search", json={"vector": vector, "limit": 64}))) == 64
    similar = shop.http.get("/products/red-plain-mug/similar", params={"limit": 3, "where": "category = mug"})
    body = {"product_id": "red-plain-mug", "limit": 3, "where": {"category": "mug"}}
    assert ids(similar) == ids(shop.http.post("/search", json=body))


def test_a_batch_returns_results_and_problems(shop: Shop, mug: bytes) -> None:
    queries = [{"image": to_base64(mug), "limit": 1}, {"product_id": "nothing"}, {"product_id": "red-plain-mug"}]
    response = shop.http.post("/search/batch", json={"queries": queries})
    first, second, third = response.json()["results"]
    assert first["hits"][0]["product_id"] == "red-plain-mug"
    assert (second["status"], second["title"]) == (404, "Not Found")
    assert "no product 'nothing'" in second["detail"]
    assert len(third["hits"]) == 10


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


# A few hundred bytes that unpack to thirty gigabytes.
BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
BOMB += chunk(b"IDAT", zlib.compress(bytes(99_999))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "the query is empty"),
        ({"product_id": "nothing"}, 404, "no product 'nothing'"),
        ({"image_id": "nothing"}, 404, "no image 'nothing'"),
        ({"text": "a red mug"}, 422, "encodes images but no text"),
        ({"product_id": "red-plain-mug", "limit": 0}, 422, "see `errors`"),
        ({"product_id": "red-plain-mug", "lmit": 3}, 422, "see `errors`"),
        ({"product_id": "red-plain-mug", "offset": 9_999, "limit": 10}, 422, "offset 9999 is not between"),
        ({"product_id": "red-plain-mug", "where": {"a": {"near": "b"}}}, 422, "'near' is no operator"),
        ({"product_id": "red-plain-mug", "where": {"a": {"in": list(range(2_000))}}}, 422, "too many"),
        ({"vector": [1.0, 2.0]}, 422, "the vector has 2 numbers"),
        ({"image": "no base64"}, 422, "see `errors`"),
        ({"image": to_base64(b"no image")}, 422, "not an image that can be read"),
        ({"image": to_base64(b"")}, 422, "the file is empty"),
        ({"image": to_base64(BOMB)}, 422, "pixels, the limit"),
        ({"image": to_base64(draw_noise((64, 64))[:-100])}, 422, "the image is broken"),
        ({"image_url": "http://127.0.0.1/x.jpg"}, 422, "does not fetch image_url"),
        ({"product_id": "red-plain-mug", "where": {"image": {"lt": "/m"}}}, 422, "a service compares image as a whole"),
        ({"product_id": "red-plain-mug", "where": {"source": {"startswith": "/"}}}, 422, "compares source as a whole"),
        (
            {"product_id": "red-plain-mug", "where": {"not": {"image": {"like": "%m"}}}},
            422,
            "compares image as a whole",
        ),
        ({"product_id": "red-plain-mug", "where": {"categry": "mug"}}, 422, "did you mean 'category'"),
        ({"product_id": "red-plain-mug", "where": {"or": [{"a": 1}] * 200}}, 422, "up to 100 filters"),
        ({"like": [{"text": "a", "product_id": "b"}]}, 422, "one of image, text"),
        ({"like": [{"image_url": "http://x", "text": "b"}]}, 422, "one of image, image_url"),
    ],
)
def test_a_bad_query_gets_a_problem(shop: Shop, body: dict[str, Any], status: int, detail: str) -> None:
    response = shop.http.post("/search", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert detail in problem["detail"]
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "status", "detail"),
    [
        ({"content": b"{"}, 415, "a body of no type"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "see `errors`"),
        ({"content": b"\xff\xfe", "headers": {"content-type": "application/json"}}, 422, "see `errors`"),
        ({"data": {"image": "x"}}, 415, "application/x-www-form-urlencoded"),
        ({"files": {"image": b"x"}, "data": {"other": "x"}}, 422, "unknown form field 'other'; send files as image"),
        ({"files": {"photo": b"x"}}, 422, "unknown form file 'photo'; send files as image and JSON as query"),
        ({"files": {"query": b"{"}}, 422, "see `errors`"),
        ({"files": {"image": b"x"}, "data": {"query": "{"}}, 422, "see `errors`"),
        ({"content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_a_body_that_cannot_be_read_gets_a_problem(shop: Shop, sent: dict[str, Any], status: int, detail: str) -> None:
    response = shop.http.post("/search", **sent)
    assert response.status_code == status, response.text
    assert detail in response.json()["detail"]


def test_only_the_first_errors_are_listed(shop: Shop) -> None:
    """Of a list only the first error is listed; of too many fields only their number."""
    few = shop.http.post("/search", json={"vector": ["x"] * 30_000, "limit": "5"}).json()["errors"]
    assert [error["at"] for error in few] == ["vector/0", "limit"]
    many = shop.http.post("/search", json=dict.fromkeys(map(str, range(100_000)), 1)).json()["errors"]
    assert many == [{"at": "", "detail": "100000 errors"}]


# Products and images.


def test_a_stored_image_is_sent_as_it_is_or_scaled_down(shop: Shop) -> None:
    first = shop.http.get("/products/red-plain-mug").json()["images"][0]
    row = next(shop.service.live.version.store.get([first["image_id"]], ["image"]))
    original = shop.http.get(first["url"])
    assert original.content == Path(row["image"]).read_bytes()
    assert original.headers["content-type"] == "image/jpeg"
    small = shop.http.get(first["url"], params={"size": 64})
    assert max(Image.open(io.BytesIO(small.content)).size) == 64
    again = shop.http.get(first["url"], params={"size": 64}, headers={"if-none-match": small.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert shop.http.get(first["url"], params={"size": 63}).status_code == 422
    for path in ("nothing", quote("../../etc/passwd", safe=""), quote(row["image"], safe="")):
        assert shop.http.get(f"/images/{path}").status_code == 404


@pytest.mark.parametrize("product_id", ["new", "a/b c", "'\"\\", "日本 %2F?#", "similar"])
def test_a_product_is_written_read_found_and_removed(shop: Shop, product_id: str) -> None:
    path = f"/products/{quote(product_id, safe='')}"
    one, two = draw_noise((60, 50), seed=1), draw_noise((50, 60), "JPEG", seed=2)

    put = shop.http.put(path, files=[("image", one), ("image", two)], data={"product": '{"metadata": {"price": 5}}'})
    counts = {"new": 2, "changed": 0, "metadata": 0, "unchanged": 0, "removed": 0}
    assert put.json() == {"product_id": product_id, **counts, "warnings": []}
    again = shop.http.put(
        path, json={"images": [{"image": to_base64(one)}, {"image": to_base64(two)}], "metadata": {"price": 5}}
    )
    assert (again.json()["unchanged"], again.json()["new"]) == (2, 0)
    product = shop.http.get(path).json()
    assert (product["product_id"], product["metadata"], len(product["images"])) == (product_id, {"price": 5}, 2)
    assert ids(shop.http.post("/search", files={"image": two}))[0] == product_id
    assert shop.http.get(product["images"][0]["url"]).content in (one, two)
    assert product_id not in ids(shop.http.get(f"{path}/similar"))

    priced = shop.http.put(path, json={"metadata": {"price": 6, "sale": True}})
    assert priced.json()["metadata"] == 2
    assert ids(shop.http.post("/search", files={"image": two}, data={"query": '{"where": {"price": 6}}'})) == [
        product_id
    ]

    fewer = shop.http.put(path, json={"images": [{"image": to_base64(one)}]})
    assert (fewer.json()["removed"], fewer.json()["metadata"]) == (1, 1)
    assert shop.http.delete(path).status_code == 204
    assert shop.http.get(path).status_code == 404
    assert shop.http.delete(path).status_code == 404
    assert not list(shop.service.settings.uploads.rglob("*.*")), "no file is left behind"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"metadata": {"price": 5}}, 404, "put it with its images first"),
        ({"images": []}, 422, "see `errors`"),
        ({"images": [{}]}, 422, "either `image`"),
        ({"images": [{"image": to_base64(b"x")}]}, 422, "not an image"),
        ({"images": [{"image": to_base64(draw_noise((9, 9)))}, {"image": to_base64(b"x")}]}, 422, "not an image"),
        (
            {"images": [{"image": to_base64(draw_noise((9, 9)))}], "metadata": {"source": "x"}},
            422,
            "column of the collection",
        ),
        (
            {"images": [{"image": to_base64(draw_noise((9, 9)))}], "metadata": {"long": "x" * 70_000}},
            422,
            "the metadata has",
        ),
        (
            {"images": [{"image": to_base64(draw_noise((9, 9)))}], "metadata": {"n": 2**63}},
            422,
            "the metadata has a number that Milvus cannot store",
        ),
    ],
)
def test_a_bad_product_is_refused_and_changes_nothing(
    shop: Shop, body: dict[str, Any], status: int, detail: str
) -> None:
    response = shop.http.put("/products/bad", json=body)
    assert response.status_code == status, response.text
    assert detail in response.json()["detail"]
    assert shop.http.get("/products/bad").status_code == 404
    assert not list(shop.service.settings.uploads.rglob("*.*"))


@pytest.mark.parametrize(("product_id", "detail"), [("a/similar", "ends in /similar"), ("ä" * 513, "product_id has")])
def test_a_product_id_that_no_route_could_address_is_refused(shop: Shop, product_id: str, detail: str) -> None:
    response = shop.http.put(f"/products/{quote(product_id)}", files={"image": draw_noise((9, 9))})
    assert response.status_code == 422
    assert detail in response.json()["detail"]


def test_a_put_with_a_misnamed_file_is_refused(shop: Shop) -> None:
    """It would otherwise replace the metadata and leave out the image."""
    before = shop.http.get("/products/red-plain-mug").json()
    response = shop.http.put("/products/red-plain-mug", files={"images": draw_noise((9, 9))})
    assert response.status_code == 422
    assert "unknown form file 'images'; send files as image and JSON as product" in response.json()["detail"]
    assert shop.http.get("/products/red-plain-mug").json() == before


@pytest.mark.parametrize("name", ["product_id", "image", "", " "])
def test_a_put_refuses_metadata_that_no_column_can_hold(shop: Shop, name: str) -> None:
    """Metadata named product_id was dropped without a word, as a manifest's own column is."""
    before = shop.http.get("/products/red-plain-mug").json()
    response = shop.http.put("/products/red-plain-mug", json={"metadata": {name: "v"}})
    assert response.status_code == 422
    assert "metadata: " in response.json()["detail"]
    assert shop.http.get("/products/red-plain-mug").json() == before


def test_the_json_of_a_form_may_be_a_file(shop: Shop, mug: bytes) -> None:
    query = ("query.json", b'{"limit": 2}', "application/json")
    assert len(ids(shop.http.post("/search", files={"image": mug, "query": query}))) == 2


def test_a_product_does_not_reveal_paths(shop: Shop) -> None:
    response = shop.http.get("/products/red-plain-mug")
    assert response.json()["images"][0]["source"] == "photos"
    assert str(shop.folder) not in response.text


# Hostile and heavy input.


BROKEN = {
    "one pixel": draw_noise((1, 1)),
    "a line": draw_noise((20_000, 1)),
    "a bomb": BOMB,
    "cut short": draw_noise((300, 300), "JPEG")[:5_000],
    "text": b"<html>" * 1_000,
    "zeros": bytes(100_000),
}


def test_broken_images_do_no_harm(shop: Shop, mug: bytes) -> None:
    expected = ids(shop.http.post("/search", files={"image": mug}))
    for name, content in BROKEN.items():
        response = shop.http.post("/search", files={"image": content})
        assert response.status_code == (200 if name in ("one pixel", "a line") else 422), name
        assert ids(shop.http.post("/search", files={"image": mug})) == expected
    assert shop.http.get("/ready").json() == {"status": "ready"}


def test_a_body_that_is_too_large_is_refused_whatever_length_it_announces(shop: Shop) -> None:
    large = bytes(50 * 2**20)
    assert shop.http.post("/search", files={"image": large}).status_code == 413
    parts = (large[: 2**20] for _ in range(50))
    response = shop.http.post("/search", content=parts, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert "26214400 bytes, the limit" in response.json()["detail"]
    assert shop.http.get("/ready").status_code == 200


def test_clients_that_disconnect_do_no_harm(shop: Shop, mug: bytes) -> None:
    head = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
    address = (shop.http.base_url.host, shop.http.base_url.port)
    for sent in (head, head + b"{", b"GET", head.replace(b"9999", b"2") + b"{}"):
        for _ in range(5):
            with socket.create_connection(address) as line:
                line.sendall(sent)
    assert len(ids(shop.http.post("/search", files={"image": mug}))) == 10
    assert shop.http.get("/ready").status_code == 200


def test_of_two_hundred_requests_at_once_the_rest_is_refused(shop: Shop, mug: bytes) -> None:
    with ThreadPoolExecutor(200) as threads:
        responses = list(threads.map(lambda _: shop.http.post("/search", files={"image": mug}), range(200)))
    statuses = [response.status_code for response in responses]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 128
    assert all(response.headers["retry-after"] for response in responses if response.status_code == 429)
    assert shop.http.get("/ready").status_code == 200
    assert "lookalike_in_flight 1.0" in shop.http.get("/metrics").text


def test_metrics_count_requests_stages_and_batches(shop: Shop) -> None:
    shop.http.get("/products/red-plain-mug/similar")
    text = shop.http.get("/metrics").text
    for line in (
        'lookalike_requests_total{method="GET",route="/products/{product_id}/similar",status="200"}',
        'lookalike_stage_seconds_count{stage="search"}',
        "lookalike_batch_size_count",
        "lookalike_queue_length 0.0",
        "lookalike_errors_total",
    ):
        assert line in text
    assert "red-plain-mug" not in text


def test_the_service_moves_to_the_version_that_goes_live(shop: Shop, mug: bytes) -> None:
    """A reindex moves the alias to another version; this one is empty, so that the result shows it."""
    before = shop.service.live.version
    with Versions(before.store.uri, collection=before.store.name) as versions:
        made = versions.make(before.store.fingerprint)
        versions.make_live(made)
        shop.service.live.switch_if_changed()
        assert ids(shop.http.post("/search", files={"image": mug})) == []
        versions.make_live(before.store.version)
        shop.service.live.switch_if_changed()
        assert len(ids(shop.http.post("/search", files={"image": mug}))) == 10
