"""`dry_run` says what a write would do, raises what it would raise, and changes nothing."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from serving import client, draw_noise, listening, service_for

import lookalike
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.schema.errors import UnknownProduct
from lookalike.schema.milvus.store import Store
from lookalike.serve.api.schemas import WriteOut
from lookalike.serve.client import Client, ServiceError

READER, WRITER = "reader-0123456789", "writer-0123456789"
ONE, TWO, THREE = (draw_noise((30, 20), seed=seed) for seed in (1, 2, 3))


class Shop(NamedTuple):
    """A service, the clients of a writer, and what it stores."""

    address: str
    http: httpx2.Client
    store: Store
    uploads: Path

    def state(self) -> tuple[list[tuple[Any, ...]], list[tuple[Path, int]]]:
        """Read all rows and all files."""
        rows = [tuple(map(str, row.values())) for row in self.store.rows(fields=["product_id", "image", "metadata"])]
        files = [(file, file.stat().st_mtime_ns) for file in self.uploads.rglob("*")]
        return sorted(rows), sorted(files)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, encoder = tmp_path_factory.mktemp("dry"), PixelEncoder()
    with Store.create(str(folder / "dry.db"), encoder.fingerprint) as store:
        service = service_for(store, encoder, folder / "uploads", keys=f"{READER}, {WRITER}:write")
        with (
            listening(service) as address,
            client(address, headers={"Authorization": f"Bearer {WRITER}"}) as http,
        ):
            yield Shop(address, http, store, folder / "uploads")


def form(*images: bytes, **metadata: Any) -> dict[str, Any]:
    return {
        "files": [("image", image) for image in images],
        "data": {"product": json.dumps({"metadata": metadata})},
    }


@pytest.mark.parametrize(
    ("put", "expected"),
    [
        (form(ONE, TWO, ONE, price=1), {"new": 2, "removed": 1, "metadata": 0, "unchanged": 0}),
        (form(THREE, price=1), {"unchanged": 1, "new": 0, "metadata": 0, "removed": 0}),
        (form(THREE, ONE, price=2), {"metadata": 1, "new": 1, "unchanged": 0, "removed": 0}),
        ({"json": {"metadata": {"price": 3}}}, {"metadata": 1, "new": 0, "unchanged": 0, "removed": 0}),
    ],
    ids=["other images", "the same", "one more and other metadata", "other metadata"],
)
def test_a_dry_put_says_what_the_put_then_does(shop: Shop, put: dict[str, Any], expected: dict[str, int]) -> None:
    assert shop.http.put("/products/p", **form(THREE, price=1)).status_code == 200
    before = shop.state()
    plan = shop.http.put("/products/p?dry_run=true", **put)
    assert plan.status_code == 200
    assert expected.items() <= plan.json().items()
    assert shop.state() == before
    assert shop.http.put("/products/p?dry_run=false", **put).json() == plan.json()
    assert shop.state() != before or expected["unchanged"]


def test_a_dry_put_of_a_new_product_stores_nothing(shop: Shop) -> None:
    before = shop.state()
    assert shop.http.put("/products/new?dry_run=true", **form(ONE)).json()["new"] == 1
    assert shop.http.get("/products/new").status_code == 404
    assert shop.state() == before


@pytest.mark.parametrize(
    ("path", "put"),
    [
        ("/products/nothing", {"json": {"metadata": {"price": 3}}}),
        ("/products/p", {"json": {"images": [{}]}}),
        ("/products/p", {"json": {"images": [{"image": base64.b64encode(b"no image").decode()}]}}),
        ("/products/p", form(ONE, b"no image")),
        ("/products/p", form(ONE[:-50])),
        ("/products/p", form(ONE, source="x")),
        ("/products/p", form(ONE, long="x" * 70_000)),
        ("/products/p", {"files": {"images": ONE}}),
        ("/products/p", {"content": b"x"}),
        ("/products/a%2Fsimilar", form(ONE)),
    ],
)
def test_a_dry_put_fails_as_the_put_does(shop: Shop, path: str, put: dict[str, Any]) -> None:
    before = shop.state()
    dry, real = shop.http.put(f"{path}?dry_run=true", **put), shop.http.put(path, **put)
    assert real.is_error
    assert (dry.status_code, dry.json()["detail"]) == (real.status_code, real.json()["detail"])
    assert shop.state() == before


def test_a_dry_delete_counts_the_images_and_removes_none(shop: Shop) -> None:
    shop.http.put("/products/d", **form(ONE, TWO))
    before = shop.state()
    plan = shop.http.delete("/products/d?dry_run=true")
    assert (plan.status_code, plan.json()["removed"]) == (200, 2)
    assert shop.state() == before
    assert shop.http.delete("/products/d").status_code == 204
    for query in ("?dry_run=true", ""):
        response = shop.http.delete(f"/products/d{query}")
        assert (response.status_code, response.json()["detail"]) == (404, "no product 'd'")


def test_a_dry_run_needs_a_key_that_may_write(shop: Shop) -> None:
    with Client(shop.address, key=READER) as reader:
        with pytest.raises(ServiceError, match=r"^403 .*may read, but not write"):
            reader.put_product("p", [ONE], {}, dry_run=True)
        with pytest.raises(ServiceError, match=r"^403 .*may read, but not write"):
            reader.delete_product("p", dry_run=True)


def test_the_clients_have_dry_runs(shop: Shop) -> None:
    with (
        Client(shop.address, key=WRITER) as sender,
        lookalike.connect(service=shop.address, api_key=WRITER) as served,
    ):
        sender.put_product("c", [ONE, TWO], {"price": 1})
        before = shop.state()
        assert sender.put_product("c", [ONE], {"price": 1}, dry_run=True).removed == 1
        assert sender.put_product("c", None, {"price": 2}, dry_run=True).metadata == 2
        plan = sender.delete_product("c", dry_run=True)
        assert isinstance(plan, WriteOut)
        assert plan.removed == 2
        assert served.delete("c", dry_run=True) == lookalike.DeleteResult(2, 1)
        with pytest.raises(UnknownProduct, match="no product 'nope'"):
            served.delete(["c", "nope"], dry_run=True)
        assert shop.state() == before
        assert served.delete("c") == lookalike.DeleteResult(2, 1)
