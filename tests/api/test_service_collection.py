"""A collection behind a service answers as the collection itself does."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import bring
from PIL import Image
from serving import listening, service_for

import lookalike
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import BadQuery, BadSettings, UnknownProduct
from lookalike.schema.milvus.store import Store
from lookalike.serve.client import ServiceError, ServiceUnreachable

LAYOUT = "{category}/{product_id}/{image}"
KEY = "a-key-of-the-shop-0123456789"


@pytest.fixture(scope="module")
def both(
    catalogue: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[lookalike.Collection, lookalike.ServiceCollection]]:
    """The sample catalogue, opened directly and by a service, in one process: Milvus Lite allows no second one."""
    folder = tmp_path_factory.mktemp("twin")
    with Store.create(str(folder / "twin.db"), PixelEncoder.fingerprint) as store:
        bring(FolderSource(catalogue / "photos", Layout(LAYOUT), "photos").images(), PixelEncoder(), store)
        service = service_for(store, PixelEncoder(), folder / "uploads", keys=f"{KEY}:write")
        with (
            listening(service) as address,
            lookalike.connect(store.uri) as direct,
            lookalike.connect(service=address, api_key=KEY) as served,
        ):
            yield direct, served


def test_searches_give_the_same_hits(
    both: tuple[lookalike.Collection, lookalike.ServiceCollection], catalogue: Path
) -> None:
    photo = catalogue / "queries" / "red-plain-mug.jpg"
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB"))
    for options in (
        {"image": photo},
        {"image": pixels, "where": "category = mug", "limit": 3},
        {"image": [photo, catalogue / "queries" / "teal-plain-lamp.jpg"]},
        {"image": photo.read_bytes(), "where": {"category": {"in": ["mug", "bag"]}}, "per_product": 2},
        {"product": "red-plain-mug", "offset": 2, "within": 0.5, "fields": ["category"]},
        {"like": ["red-plain-mug", {"image": photo, "weight": 0.5}], "unlike": "blue-checked-shirt", "min_score": 0.1},
    ):
        one, other = both[0].search(**options), both[1].search(**options)
        assert [(hit.product_id, hit.image_id, hit.metadata) for hit in one] == [
            (hit.product_id, hit.image_id, hit.metadata) for hit in other
        ]
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=1e-5)
        assert [len(hit.images) for hit in one] == [len(hit.images) for hit in other]
        assert one.next_offset == other.next_offset
        assert other._repr_html_().count("data:image/jpeg") == len(other)


def test_a_product_is_the_same(both: tuple[lookalike.Collection, lookalike.ServiceCollection]) -> None:
    one, other = (shop.get("red-plain-mug") for shop in both)
    assert (one.product_id, one.metadata) == (other.product_id, other.metadata)
    assert [image.image_id for image in one.images] == [image.image_id for image in other.images]
    assert all(image.image.startswith("http://127.0.0.1:") for image in other.images)


def test_products_are_deleted_by_id(both: tuple[lookalike.Collection, lookalike.ServiceCollection]) -> None:
    with pytest.raises(UnknownProduct):
        both[1].delete(["blue-plain-bag", "nope"])
    assert both[1].delete("blue-plain-bag", dry_run=True) == lookalike.DeleteResult(3, 1)
    assert both[1].delete("blue-plain-bag") == lookalike.DeleteResult(3, 1)
    with pytest.raises(UnknownProduct):
        both[1].get("blue-plain-bag")


def test_errors_are_those_of_the_collection(both: tuple[lookalike.Collection, lookalike.ServiceCollection]) -> None:
    for shop in both:
        with pytest.raises(UnknownProduct):
            shop.get("nope")
        with pytest.raises(UnknownProduct):
            shop.search(product="nope")
        with pytest.raises(BadQuery):
            shop.search(text="red")  # this encoder has no text tower
        with pytest.raises(BadQuery, match="limit"):
            shop.search(product="red-plain-mug", limit="5")  # type: ignore[arg-type]


def test_what_needs_milvus_says_so(both: tuple[lookalike.Collection, lookalike.ServiceCollection]) -> None:
    with pytest.raises(AttributeError, match=r"a service cannot ingest; connect to its Milvus: lookalike\.connect"):
        both[1].ingest("photos")  # type: ignore[attr-defined]
    assert not hasattr(both[1], "nothing")


def test_a_wrong_key_or_address_is_refused(both: tuple[lookalike.Collection, lookalike.ServiceCollection]) -> None:
    address = repr(both[1]).split("'")[1]
    with lookalike.connect(service=address, api_key="wrong") as shop, pytest.raises(ServiceError, match="401"):
        shop.get("red-plain-mug")
    for options in ({"uri": "./lookalike.db"}, {"encoder": "clip"}, {"collection": "other"}):
        with pytest.raises(BadSettings, match="the service has its own Milvus, collection and encoder"):
            lookalike.connect(service=address, **options)  # type: ignore[call-overload]
    with pytest.raises(BadSettings, match="api_key is for"):
        lookalike.connect("./lookalike.db", api_key="key")  # type: ignore[call-overload]
    with pytest.raises(BadSettings, match="http://"):
        lookalike.connect(service="localhost:8000")
    with lookalike.connect(service="http://127.0.0.1:9") as shop, pytest.raises(ServiceUnreachable):
        shop.get("red-plain-mug")
