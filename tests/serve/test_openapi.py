"""/openapi.json is true: requests generated from it get the responses that it documents."""

import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
import schemathesis
from conftest import bring
from hypothesis import HealthCheck, given, settings
from make_tiny_clip import draw
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import client, draw_noise, listening, service_for

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.store import Store


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for colour in ("red", "green", "blue"):
        (folder / colour).mkdir()
        draw(colour, "circle", Random(1)).save(folder / colour / "1.png")
    return folder


@pytest.fixture(scope="module")
def description(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder, encoder = tmp_path_factory.mktemp("openapi"), PixelEncoder()
    with Store.create(str(folder / "api.db"), encoder.fingerprint) as store:
        bring(FolderSource(photos, Layout("{product_id}/{image}")).images(), encoder, store)
        with listening(service_for(store, encoder, folder / "uploads")) as address:
            yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_response_is_documented(description: Any, mode: GenerationMode) -> None:
    """Valid and invalid requests to every route."""
    routes = [operation.ok() for operation in description.get_all_operations()]
    assert len(routes) >= 10
    for route in routes:
        if mode is GenerationMode.NEGATIVE and not (route.body or route.query or route.path_parameters):
            continue

        @settings(max_examples=30, suppress_health_check=list(HealthCheck))
        @given(case=route.as_strategy(generation_mode=mode))
        def call(case: "Case[Any]") -> None:
            # A schema cannot say which bytes are an image, or which words an encoder knows.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        call()


READER, WRITER = "reader-0123456789", "writer-0123456789"
JSON = {"content-type": "application/json"}
PHOTO = draw_noise((20, 20))
# Those of a failure are shown in test_serve_runtime.py: a bug, Milvus away, a deadline, a full disk.
FAILURES = {"429", "500", "503", "504", "507"}
ROUTES: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {
    ("post", "/search"): [
        ("/search", {"json": {"product_id": "red"}}),
        ("/search", {"json": {"product_id": "nothing"}}),
        ("/search", {"content": b"--", "headers": {"content-type": "multipart/form-data"}}),
        ("/search", {"content": b"x"}),
        ("/search?x=1", {"json": {}}),
        ("/search", {"content": bytes(2 * 2**20), "headers": JSON}),
    ],
    ("post", "/search/batch"): [
        ("/search/batch", {"json": {"queries": [{"product_id": "red"}, {"product_id": "nothing"}]}}),
        ("/search/batch", {"files": {"image": PHOTO}}),
        ("/search/batch", {"json": {"queries": []}}),
        ("/search/batch", {"content": bytes(2 * 2**20), "headers": JSON}),
    ],
    ("get", "/products/{product_id}/similar"): [
        ("/products/red/similar", {}),
        ("/products/nothing/similar", {}),
        ("/products/red/similar?limit=0", {}),
    ],
    ("get", "/products/{product_id}"): [
        ("/products/red", {}),
        ("/products/nothing", {}),
        ("/products/red?x=1", {}),
    ],
    ("put", "/products/{product_id}"): [
        ("/products/new", {"files": {"image": PHOTO}}),
        ("/products/nothing", {"json": {}}),
        ("/products/new", {"content": b"--", "headers": {"content-type": "multipart/form-data"}}),
        ("/products/new", {"content": b"x"}),
        ("/products/new?dry_run=perhaps", {"json": {}}),
        ("/products/new", {"content": bytes(2 * 2**20), "headers": JSON}),
    ],
    ("delete", "/products/{product_id}"): [
        ("/products/green?dry_run=true", {}),
        ("/products/green", {}),
        ("/products/nothing", {}),
        ("/products/green?dry_run=perhaps", {}),
    ],
    ("get", "/images/{image_id}"): [
        ("IMAGE", {}),
        ("IMAGE", {"headers": {"if-none-match": "ETAG"}}),
        ("/images/nothing", {}),
        ("IMAGE?size=63", {}),
    ],
    ("get", "/health"): [("/health", {}), ("/health?x=1", {})],
    ("get", "/ready"): [("/ready", {}), ("/ready?x=1", {})],
    ("get", "/metrics"): [("/metrics", {}), ("/metrics?x=1", {})],
}


def test_each_documented_status_is_sent_and_each_sent_status_is_documented(photos: Path, tmp_path: Path) -> None:
    """With keys and without, and with bodies that are too large or never end; but for failures of the service."""
    encoder, seen = PixelEncoder(), {route: set[str]() for route in ROUTES}
    with Store.create(str(tmp_path / "all.db"), encoder.fingerprint) as store:
        bring(FolderSource(photos, Layout("{product_id}/{image}")).images(), encoder, store)
        settings: dict[str, Any] = {"max_body": 2**20, "body_timeout": 0.5}
        with (
            listening(
                service_for(store, encoder, tmp_path / "uploads", keys=f"{READER}, {WRITER}:write", **settings)
            ) as address,
            client(address) as http,
        ):
            write = {"authorization": f"Bearer {WRITER}"}
            [image] = http.get("/products/red", headers=write).json()["images"]
            etag = http.get(image["url"], headers=write).headers["etag"]
            documented = http.get("/openapi.json", headers=write).json()["paths"]
            for (method, path), requests in ROUTES.items():
                statuses = seen[method, path]
                for sent_path, sent in requests:
                    url, headers = sent_path.replace("IMAGE", image["url"]), dict(sent.get("headers", {}))
                    if "if-none-match" in headers:
                        headers["if-none-match"] = etag
                    request = {**sent, "headers": {**headers, **write}}
                    statuses.add(str(http.request(method, url, **request).status_code))
                first, sent = requests[0][0].replace("IMAGE", image["url"]), requests[0][1]
                statuses.add(str(http.request(method, first, **sent).status_code))
                statuses.add(str(http.request(method, first, **sent, headers={"x-api-key": READER}).status_code))
                statuses |= send_raw(http, method, first, "content-length: 9999999")
                statuses |= send_raw(http, method, first, "content-length: 99", "content-type: application/json")
        with listening(service_for(store, encoder, tmp_path / "uploads")) as address, client(address) as http:
            for (method, _), requests in ROUTES.items():
                first = requests[0][0].replace("IMAGE", image["url"])
                response = http.request(method, first, headers={"host": "shop.example"})
                seen[method, _].add(str(response.status_code))
    expected = {route: set(documented[route[1]][route[0]]["responses"]) - FAILURES for route in ROUTES}
    assert {route: statuses - FAILURES for route, statuses in seen.items()} == expected
    assert {(method, path) for path, methods in documented.items() for method in methods} == set(ROUTES)


def send_raw(http: httpx2.Client, method: str, path: str, *headers: str) -> set[str]:
    """Send the head of a request with a body that never comes; return the status of the response."""
    lines = [f"{method.upper()} {path} HTTP/1.1", "host: localhost", f"x-api-key: {WRITER}", *headers, "", ""]
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return {connection.recv(99).split()[1].decode()}
