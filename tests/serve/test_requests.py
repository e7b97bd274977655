"""What the service would otherwise ignore in a request is refused by name; HEAD, OPTIONS and the version are true."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx2
import pytest
from conftest import bring
from make_tiny_clip import draw
from serving import client, draw_noise, listening, service_for

import lookalike
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.milvus.store import Store

GET_ROUTES = (
    "/health",
    "/ready",
    "/products/red",
    "/products/nothing",
    "/products/red/similar",
    "/products/red/similar?limit=no",
    "/images/nothing",
    "/openapi.json",
    "/docs",
    "/",
    "/?product=nothing",
    "/login",
    "/uploaded/nothing",
    "/static/0/page.css",
)


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    folder, encoder = tmp_path_factory.mktemp("requests"), PixelEncoder()
    for colour in ("red", "green", "blue"):
        (folder / "photos" / colour).mkdir(parents=True)
        draw(colour, "circle", Random(1)).save(folder / "photos" / colour / "1.png")
    with Store.create(str(folder / "strict.db"), encoder.fingerprint) as store:
        bring(FolderSource(folder / "photos", Layout("{product_id}/{image}")).images(), encoder, store)
        with listening(service_for(store, encoder, folder / "uploads")) as address, client(address) as http:
            yield http


@pytest.mark.parametrize(
    ("method", "address", "detail"),
    [
        ("GET", "/products/red/similar?limitt=5", "unknown parameter 'limitt'; did you mean 'limit'?"),
        ("GET", "/products/red/similar?Limit=5", "unknown parameter 'Limit'; did you mean 'limit'?"),
        ("GET", "/products/red/similar?within=0.1", "unknown parameter 'within'; use limit, offset, where"),
        ("GET", "/products/red/similar?limit=5&limit=9", "the parameter 'limit' is given 2 times; give it once"),
        ("GET", "/products/red/similar?a=1&limit=0", "unknown parameter 'a'"),
        ("GET", "/products/red?fields=a", "unknown parameter 'fields'; leave it out, there are none here"),
        ("GET", "/images/nothing?szie=64", "unknown parameter 'szie'; did you mean 'size'?"),
        ("GET", "/health?x=1", "unknown parameter 'x'"),
        ("GET", "/ready?x=1", "unknown parameter 'x'"),
        ("GET", "/metrics?x=1", "unknown parameter 'x'"),
        ("POST", "/search?limit=5", "unknown parameter 'limit'"),
        ("POST", "/search/batch?limit=5", "unknown parameter 'limit'"),
        ("PUT", "/products/new?dryrun=true", "unknown parameter 'dryrun'; did you mean 'dry_run'?"),
        ("DELETE", "/products/red?dry-run=true", "unknown parameter 'dry-run'; did you mean 'dry_run'?"),
        ("DELETE", "/products/red?dry_run=true&dry_run=false", "the parameter 'dry_run' is given 2 times"),
    ],
)
def test_a_parameter_that_would_be_ignored_is_refused(
    http: httpx2.Client, method: str, address: str, detail: str
) -> None:
    response = http.request(method, address)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith(detail)
    assert http.get("/products/red").status_code == 200, "nothing was deleted"


def test_a_parameter_that_is_a_list_may_be_repeated(http: httpx2.Client) -> None:
    where: dict[str, Any] = {"where": ["product_id != green", "product_id != blue"], "limit": 5}
    response = http.get("/products/red/similar", params=where)
    assert (response.status_code, response.json()["hits"]) == (200, [])


@pytest.mark.parametrize(
    ("body", "at", "detail"),
    [
        ({"limitt": 5}, "limitt", "unknown field 'limitt'; did you mean 'limit'?"),
        ({"like": [{"wieght": 1}]}, "like/0/wieght", "unknown field 'wieght'; did you mean 'weight'?"),
        ({"like": [{"limit": 1}]}, "like/0/limit", "unknown field 'limit'; use image, image_id"),
    ],
)
def test_an_unknown_field_of_a_json_body_is_refused(
    http: httpx2.Client, body: dict[str, Any], at: str, detail: str
) -> None:
    [error] = http.post("/search", json=body).json()["errors"]
    assert error["at"] == at
    assert error["detail"].startswith(detail)
    [error] = http.post("/search/batch", json={"queries": [body]}).json()["errors"]
    assert error["at"] == f"queries/0/{at}"
    assert error["detail"].startswith(detail)


def test_a_form_field_that_would_be_ignored_is_refused(http: httpx2.Client) -> None:
    image = draw_noise((20, 20))
    form = [("query", (None, json.dumps({"limit": limit}))) for limit in (1, 2)]
    response = http.post("/search", files=[("image", image), *form])
    assert response.status_code == 422
    assert response.json()["detail"] == "the form field 'query' is given 2 times; give it once"
    response = http.put("/products/new", files={"image": image}, data={"metadata": "{}"})
    assert "unknown form field 'metadata'; send files as image and JSON as product" in response.json()["detail"]


@pytest.mark.parametrize(
    "address",
    ["/?product=red&utm_source=mail&utm_campaign=x", "/?gclid=1&fbclid=2&msclkid=3&_ga=4&mc_cid=5&srsltid=6", "/?"],
)
def test_the_page_ignores_what_advertisements_add_to_links(http: httpx2.Client, address: str) -> None:
    response = http.get(address)
    assert response.status_code == 200
    assert "does not know" not in response.text


@pytest.mark.parametrize(
    ("address", "notice"),
    [
        ("/?category=mug", "does not know “category” in the link, and left it out."),
        ("/?product=red&pruduct=blue&x=1", "does not know “pruduct”, “x” in the link, and left them out."),
        ("/?product=red&offset=two", "does not know “offset=two” in the link, and left it out."),
        ("/?<b>=1", "does not know “&lt;b&gt;” in the link, and left it out."),
    ],
)
def test_the_page_says_what_it_does_not_know_and_shows_the_rest(http: httpx2.Client, address: str, notice: str) -> None:
    response = http.get(address)
    assert response.status_code == 200
    assert notice in response.text
    assert '<ol id="grid"' in response.text


@pytest.mark.parametrize(
    ("address", "name"), [("/?product=a&product=b", "product"), ("/?min.price=1&min.price=2", "min.price")]
)
def test_the_page_refuses_two_values_of_one_part(http: httpx2.Client, address: str, name: str) -> None:
    response = http.get(address)
    assert response.status_code == 422
    assert f"the parameter &#39;{name}&#39; is given 2 times; give it once" in response.text


def test_the_login_form_refuses_unknown_fields(http: httpx2.Client) -> None:
    response = http.post("/login", data={"key": "x", "them": "/"})
    assert response.status_code == 422
    assert response.json()["detail"] == "unknown form field 'them'; did you mean 'then'?"


def test_the_form_of_the_page_refuses_unknown_fields(http: httpx2.Client) -> None:
    sent: list[dict[str, Any]] = [
        {"data": {"pruduct": "red"}},
        {"files": {"pruduct": draw_noise((9, 9))}},
        {"files": {"upload": draw_noise((9, 9))}, "data": {"pruduct": "red"}},
    ]
    for form in sent:
        response = http.post("/", **form)
        assert response.status_code == 422
        assert "unknown form field &#39;pruduct&#39;; did you mean &#39;product&#39;?" in response.text


@pytest.mark.parametrize("address", GET_ROUTES)
def test_head_is_get_without_the_body(http: httpx2.Client, address: str) -> None:
    get, head = http.get(address), http.head(address)
    assert head.status_code == get.status_code
    assert head.content == b""
    # The id of the request and the time of a search are in some bodies, so that their length varies.
    varying = {"x-request-id", "date"} | ({"content-length"} if get.is_error or b"took_ms" in get.content else set())
    varying |= {"content-length"} if b" ms\n" in get.content else set()
    one, other = ({k: v for k, v in response.headers.items() if k not in varying} for response in (get, head))
    assert one == other


def test_head_of_metrics_and_of_an_image(http: httpx2.Client) -> None:
    assert http.head("/metrics").headers["content-type"].startswith("text/plain")
    url = http.get("/products/red").json()["images"][0]["url"]
    get, head = http.get(url), http.head(url)
    assert head.headers["content-length"] == str(len(get.content))
    assert head.headers["etag"] == get.headers["etag"]
    assert http.head(url, headers={"if-none-match": get.headers["etag"]}).status_code == 304
    assert 'method="HEAD",route="/images/{image_id}",status="200"' in http.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("POST", "/products/red", "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", "/products/red", "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", "/search", "POST"),
        ("HEAD", "/search", "POST"),
        ("GET", "/search/batch", "POST"),
        ("OPTIONS", "/health", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD, POST"),
        ("PUT", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_gets_the_ones_that_are_allowed(
    http: httpx2.Client, method: str, address: str, allowed: str
) -> None:
    response = http.request(method, address)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert response.json()["detail"] == f"{address} takes {allowed}, not {method}"


def test_the_description_has_the_version_of_lookalike(http: httpx2.Client) -> None:
    assert http.get("/openapi.json").json()["info"]["version"] == lookalike.__version__
