"""Requests made from /openapi.json by schemathesis, with all of its checks; every documented status, failures too."""

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from conftest import bring
from hostile.attacked import WRITER, Attacked, attacked_shop, connect, draw_png, draw_products
from hostile.conftest import Outcome
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from proxy import Proxy
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import RejectedPositiveData
from serve import test_openapi
from serve.test_openapi import FAILURES, ROUTES
from serving import client, listening, service_for, until

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.store import Store

AREA = "Service: its description"
KEY = {"authorization": f"Bearer {WRITER}"}
EXAMPLES = 40
OPEN = ("/health", "/ready")
"""They need no key."""

NOT_IN_A_SCHEMA = re.compile(
    "the query is empty|not an image that can be read|the image is broken|the file is empty"
    "|not Base64|contain only ASCII|encodes images but no text|has either `image`|does not fetch image_url"
    "|a part of a query is|filter .* was not understood|no product of the collection has|column|has length 0"
    r"|Invalid JSON|Input should be an object|Input should be a valid integer|dimension|values|\(.* conditions"
)
"""Why a request that matches its schema is refused: a schema cannot say which bytes are an image, which parts exclude
each other, or what the collection holds; a form's field that has JSON is a string in it; and 1.0 is an integer in a
schema, but none for a service that takes no number for another."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked_shop(tmp_path_factory.mktemp("description"), keys=f"{WRITER}:write") as shop:
        yield shop


def load_description(address: str) -> Any:
    """Load the description, and say in it what only the operator of this service knows: all but probes need a key."""
    raw = httpx2.get(f"{address}/openapi.json", headers=KEY, trust_env=False).json()
    raw["security"] = [{"key": []}]
    for path in OPEN:
        raw["paths"][path]["get"]["security"] = []
    description = schemathesis.openapi.from_dict(raw)
    description.config.update(base_url=address)
    return description


ALL_ROUTES = [f"{method.upper()} {path}" for method, path in ROUTES]


@pytest.mark.parametrize("label", ALL_ROUTES)
def test_all_checks_pass_for_each_route(shop: Attacked, outcome: Outcome, label: str) -> None:
    """Status, type, headers and body are documented, no 5xx, no way around the key, no unknown method, and so on."""
    routes = {route.ok().label: route.ok() for route in load_description(shop.address).get_all_operations()}
    assert sorted(routes) == sorted(ALL_ROUTES)
    route = routes[label]
    sent = check_route(route, GenerationMode.POSITIVE)
    if route.body or route.query or route.path_parameters:
        sent += check_route(route, GenerationMode.NEGATIVE)
        assert sent >= 2 * EXAMPLES
    assert shop.http.get("/ready", headers=KEY).status_code == 200
    outcome(AREA, f"{label}: valid and invalid requests made from its schema", "every check of schemathesis passes")


def check_route(route: Any, mode: GenerationMode) -> int:
    """Send requests to a route, and check each response; return how many were sent."""
    sent = 0

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None)
    @given(case=route.as_strategy(generation_mode=mode), product=st.sampled_from(("red", "green", "nothing")))
    def send(case: "Case[Any]", product: str) -> None:
        nonlocal sent
        sent += 1
        # A random id is never that of a product.
        if mode is GenerationMode.POSITIVE and "product_id" in case.path_parameters:
            case.path_parameters["product_id"] = product
        response = case.call(headers=KEY)
        try:
            case.validate_response(response, headers=KEY)
        except FailureGroup as failures:
            if not all(isinstance(failure, RejectedPositiveData) for failure in failures.exceptions):
                raise
            assert response.status_code == 422
            assert NOT_IN_A_SCHEMA.search(response.text), response.text

    send()
    return sent


NO_500 = {
    ("get", "/products/{product_id}"),
    ("get", "/products/{product_id}/similar"),
    ("delete", "/products/{product_id}"),
    ("get", "/images/{image_id}"),
    ("get", "/health"),
    ("get", "/metrics"),
}
"""Only a bug of lookalike itself would; the others encode, so that a bug of an encoder shows what a bug comes to."""

Seen = dict[tuple[str, str], set[str]]


class BrokenEncoder(PixelEncoder):
    """Has a bug."""

    def prepare(self, image: Image.Image) -> Pixels:
        return super().prepare(image)["wrong"]


def test_every_documented_status_is_seen(server: str, tmp_path: Path, small_disk: Path, outcome: Outcome) -> None:
    draw_products(tmp_path / "photos")
    # All statuses but those of failures.
    test_openapi.test_each_documented_status_is_sent_and_each_sent_status_is_documented(tmp_path / "photos", tmp_path)
    seen: Seen = {route: set() for route in ROUTES}
    with attacked_shop(tmp_path / "shop") as shop:
        paths = shop.http.get("/openapi.json").json()["paths"]
        see_too_many_requests(shop, seen)
        see_responses(shop.store, PixelEncoder(), seen, deadline=1e-6)
        see_responses(shop.store, BrokenEncoder(), seen)
    see_milvus_away(server, tmp_path, seen)
    see_full_disk(small_disk, seen)
    documented = {route: set(paths[route[1]][route[0]]["responses"]) & FAILURES for route in ROUTES}
    assert {route for route, statuses in documented.items() if "500" in statuses - seen[route]} == NO_500
    assert {route: statuses & FAILURES for route, statuses in seen.items()} == {
        route: statuses - ({"500"} if route in NO_500 else set()) for route, statuses in documented.items()
    }
    count = sum(len(paths[path][method]["responses"]) for method, path in ROUTES)
    routes = ", ".join(sorted(f"{method.upper()} {path}" for method, path in NO_500))
    outcome(
        AREA,
        f"each of the {count} documented statuses of the {len(ROUTES)} routes",
        f"seen, but for 500 of {routes}: only a bug of lookalike itself would lead to it",
    )


def see_too_many_requests(shop: Attacked, seen: Seen) -> None:
    service = service_for(shop.store, PixelEncoder(), shop.service.settings.uploads, max_in_flight=1)
    with listening(service) as address, client(address) as http, connect(address) as holds_the_slot:
        holds_the_slot.sendall(
            b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
        )
        until(lambda: http.get("/metrics").status_code == 429)
        send_to_all(http, seen)


def see_responses(store: Store, encoder: PixelEncoder, seen: Seen, **options: Any) -> None:
    service = service_for(store, encoder, Path(store.uri).with_name("uploads"), **options)
    with listening(service) as address, client(address) as http:
        send_to_all(http, seen)


def see_milvus_away(server: str, folder: Path, seen: Seen) -> None:
    proxy, encoder = Proxy(server), PixelEncoder()
    with Store.create(proxy.uri, encoder.fingerprint, collection="every_status") as store:
        bring(FolderSource(folder / "photos", Layout("{product_id}/{image}")).images(), encoder, store)
        with listening(service_for(store, encoder, folder / "uploads")) as address, client(address) as http:
            proxy.cut()
            send_to_all(http, seen)
            proxy.connected = True
            until(lambda: http.get("/ready").status_code == 200)
    proxy.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has little more room than Milvus Lite needs."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=350m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk: sudo make test-hostile")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def see_full_disk(disk: Path, seen: Seen) -> None:
    with attacked_shop(disk / "shop") as shop:
        (disk / "other").write_bytes(bytes(40 * 2**20))
        send_to_all(shop.http, seen)
        shop.assert_unharmed()


def send_to_all(http: httpx2.Client, seen: Seen) -> None:
    """Send each route a valid request; an image to those that take one."""
    photo = draw_png("yellow")
    query = {"image": base64.b64encode(photo).decode()}
    images = {
        "/search": {"files": {"image": photo}},
        "/search/batch": {"json": {"queries": [query]}},
    }
    for (method, path), requests in ROUTES.items():
        url, sent = requests[1 if method == "delete" else 0]
        request: Any = images.get(path, sent)
        seen[method, path].add(
            str(http.request(method, url.replace("IMAGE", "/images/unknown"), **request).status_code)
        )
