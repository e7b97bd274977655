"""A product that is put with a value of another type than its column has is stored, and the response says so."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import NewStore, a_row
from serving import draw_noise, listening, service_for

from lookalike.encode.registry import load_encoder
from lookalike.serve.client import Client

TEXT = "price is a number in this collection, and text in this product: filters on it will not find it"


@pytest.fixture
def client(new_store: NewStore, tmp_path: Path) -> Iterator[Client]:
    encoder = load_encoder("pixels")
    store = new_store(encoder.fingerprint)
    vector = np.eye(1, encoder.fingerprint.dim, dtype=np.float32)[0]
    prices = [{"price": n, "tags": ["red"], "size": str(n) if n % 2 else n} for n in range(20)]
    store.upsert([a_row(str(n), f"p{n}", vector, metadata) for n, metadata in enumerate(prices)])
    with listening(service_for(store, encoder, tmp_path / "uploads")) as address, Client(address) as client:
        yield client


def test_a_put_that_changes_the_type_of_a_column_says_so(client: Client) -> None:
    image = [draw_noise((20, 20), seed=1)]
    assert client.put_product("new", image, {"price": 12.5, "size": "XL", "brand": "Acme"}).warnings == []
    for images in (image, None, None):
        assert client.put_product("new", images, {"price": "12.50", "tags": "red"}).warnings == [
            TEXT,
            "tags is a list in this collection, and text in this product: filters on it will not find it",
        ]
    assert client.put_product("new", None, {"price": "9"}, dry_run=True).warnings == [TEXT]
    assert client.get_product("new").metadata == {"price": "12.50", "tags": "red"}
    assert client.put_product("p1", None, {"price": "1"}).warnings == [TEXT]
    assert client.put_product("new", None, {"price": True}).warnings == [TEXT.replace("and text", "and true or false")]


def test_the_first_product_with_a_column_decides_its_type(client: Client) -> None:
    image = [draw_noise((20, 20), seed=2)]
    assert client.put_product("a", image, {"stock": 5}).warnings == []
    assert client.put_product("b", image, {"stock": "many"}).warnings == [TEXT.replace("price", "stock")]
    assert client.put_product("a", None, {"stock": 6}).warnings == []
