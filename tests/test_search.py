"""The answer to a question: the right products, as many as asked for, and none twice."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import DIM, NewStore, a_row, bring, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from make_tiny_clip import COLOURS, SHAPES, draw

from encode.decode import decode
from encode.encoder import Encoder
from encode.models import load_encoder
from ingest.layout import Layout
from ingest.sources import FolderSource
from schema.errors import BadImage, BadQuery, EncoderMismatch, UnknownProduct
from schema.filter_words import parse
from schema.product import ImageRow, Vector
from schema.store import Store
from search.finder import Finder
from search.query import Query
from search.ranking import combine

TINY_CLIP = Path(__file__).parent / "tiny_clip"


def filled(store: Store, encoder: Encoder, folder: Path, layout: str) -> Store:
    source = FolderSource(folder, Layout(layout))
    assert bring(source.images(), encoder, store, batch_size=32).rejected == 0
    return store


@pytest.fixture(scope="module")
def shop(new_store: NewStore, encoder: Encoder, catalogue: Path) -> Finder:
    """The sample catalogue behind a Finder."""
    store = filled(new_store(encoder.fingerprint), encoder, catalogue / "photos", "{category}/{product_id}/{image}")
    return Finder(store, lambda: encoder)


def ids(finder: Finder, **question: object) -> list[str]:
    return [hit.product_id for hit in finder.find(Query(**question)).hits]  # type: ignore[arg-type]


def test_every_photo_finds_its_own_product_first(shop: Finder, catalogue: Path) -> None:
    for photo in sorted((catalogue / "photos").rglob("1.jpg")):
        hit = shop.find(Query(image=photo.read_bytes(), limit=1)).hits[0]
        assert hit.product_id == photo.parent.name
        assert hit.score == pytest.approx(1, abs=1e-3)
        assert (hit.image, hit.metadata) == (str(photo), {"category": photo.parent.parent.name})


def test_a_new_photo_finds_its_product(shop: Finder, catalogue: Path) -> None:
    photos = sorted((catalogue / "queries").iterdir())
    first = [ids(shop, image=photo.read_bytes(), limit=1)[0] == photo.stem for photo in photos]
    assert sum(first) >= len(photos) - 1


def test_more_like_a_product_leaves_it_out(shop: Finder) -> None:
    answer = shop.find(Query(product_id="red-plain-mug", limit=64)).hits
    assert len(answer) == len({hit.product_id for hit in answer}) == 63
    assert "red-plain-mug" not in {hit.product_id for hit in answer}
    assert sum(hit.product_id.endswith("-mug") for hit in answer[:7]) >= 4


def test_asking_by_product_needs_no_encoder(shop: Finder) -> None:
    def fails() -> Encoder:
        raise AssertionError("the encoder was loaded")

    assert len(ids(Finder(shop._store, fails), product_id="red-plain-mug", limit=3)) == 3


def test_a_mix_lies_between_what_is_mixed(shop: Finder, catalogue: Path) -> None:
    mug = (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()
    mixed = shop.find(Query(image=mug, product_id="blue-checked-shirt", limit=64)).hits
    assert "blue-checked-shirt" not in {hit.product_id for hit in mixed}
    assert {"mug", "shirt"} <= {hit.metadata["category"] for hit in mixed[:12]}


def test_filters_limit_and_min_score(shop: Finder, catalogue: Path) -> None:
    mug = (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()
    bags = shop.find(Query(image=mug, where=parse(["category = bag"]), limit=100)).hits
    assert len(bags) == 8
    assert {hit.metadata["category"] for hit in bags} == {"bag"}
    assert ids(shop, image=mug, where=parse(["category = bag", "category = hat"])) == []
    everything = shop.find(Query(image=mug, limit=64)).hits
    scores = [hit.score for hit in everything]
    assert len(everything) == 64
    assert scores == sorted(scores, reverse=True)
    cut = shop.find(Query(image=mug, limit=64, min_score=scores[9])).hits
    assert [hit.product_id for hit in cut] == [hit.product_id for hit in everything[:10]]


@pytest.mark.parametrize(
    ("question", "error", "message"),
    [
        ({}, BadQuery, "nothing is asked"),
        ({"text": "  "}, BadQuery, "--text is empty"),
        ({"text": "a red mug"}, BadQuery, r"'efficientnet-lite0' knows pictures but no words.*'clip'.*--encoder clip"),
        ({"product_id": "nothing"}, UnknownProduct, "no product 'nothing'"),
        ({"product_id": "x' or product_id != '"}, UnknownProduct, "no product"),
        ({"product_id": "\udcff"}, BadQuery, "UTF-8"),
        ({"image": b"no picture"}, BadImage, "not a picture"),
        ({"product_id": "red-plain-mug", "limit": 0}, BadQuery, "--limit 0 is not between 1 and 1000"),
        ({"product_id": "red-plain-mug", "min_score": float("nan")}, BadQuery, "no cosine"),
    ],
)
def test_questions_that_cannot_be_answered(
    shop: Finder, question: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        ids(shop, **question)


def test_another_encoder_is_refused(shop: Finder, catalogue: Path) -> None:
    finder = Finder(shop._store, lambda: load_encoder("pixels"))
    with pytest.raises(EncoderMismatch, match=r"'efficientnet-lite0'.*'pixels' is another encoder"):
        ids(finder, image=next((catalogue / "queries").iterdir()).read_bytes())


# Laws, on rows that are made up.


def scattered(products: int, pictures: Callable[[int], int]) -> list[ImageRow]:
    """Products with so many pictures each, in directions drawn at random; `n` counts the products."""
    random = np.random.default_rng(5)

    def vector() -> Vector:
        return unit(*random.normal(size=DIM))

    return [
        a_row(f"{p}/{n}", f"p{p}", vector(), {"n": p, "parity": "even" if p % 2 == 0 else "odd"})
        for p in range(products)
        for n in range(pictures(p))
    ]


@pytest.fixture(scope="module")
def crowded(new_store: NewStore) -> tuple[Finder, list[ImageRow]]:
    """Forty products; the first has more pictures than all the others together."""
    store, rows = new_store(), scattered(40, lambda p: 600 if p == 0 else 1 + p % 5)
    store.upsert(rows)
    return Finder(store, lambda: pytest.fail("no encoder is needed")), rows


def exact(rows: list[ImageRow], vector: Vector, limit: int, keep: Callable[[ImageRow], bool]) -> list[str]:
    """The answer by plain numpy: products by their best picture."""
    best: dict[str, float] = {}
    for row in filter(keep, rows):
        best[row.product_id] = max(best.get(row.product_id, -2), float(row.embedding @ vector))
    return sorted(best, key=lambda product: -best[product])[:limit]


@settings(max_examples=25)
@given(asked=st.integers(0, 39), limit=st.integers(1, 45), below=st.integers(0, 40))
def test_always_k_distinct_products_the_nearest_ones(
    crowded: tuple[Finder, list[ImageRow]], asked: int, limit: int, below: int
) -> None:
    finder, rows = crowded
    own = sorted((row for row in rows if row.product_id == f"p{asked}"), key=lambda row: row.image_id)
    vector = combine(row.embedding for row in own)

    found = ids(finder, product_id=f"p{asked}", limit=limit, where=parse([f"n < {below}"]))

    expected = exact(rows, vector, limit, lambda row: row.product_id != f"p{asked}" and row.metadata["n"] < below)
    assert found == expected


def test_one_product_fills_more_than_a_whole_window(new_store: NewStore) -> None:
    store = new_store()
    crowd = [a_row(f"a/{n}", "a", unit(1, n / 10_000)) for n in range(500)]
    others = [a_row(f"{n}", f"b{n}", unit(0.1, 1, n / 10)) for n in range(9)]
    store.upsert([*crowd, *others, a_row("asked", "asked", unit(1))])
    store.window = 20

    found = ids(Finder(store, lambda: pytest.fail("no encoder is needed")), product_id="asked", limit=10)

    assert found == ["a", *(f"b{n}" for n in range(9))]


def test_products_that_a_graph_does_not_reach_are_found(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's graph search may end early; here it is made to, on every backend."""
    store = new_store()
    rows = scattered(20, lambda p: 2)
    store.upsert(rows)
    search = store.search
    monkeypatch.setattr(store, "exact", False)
    monkeypatch.setattr(store, "search", lambda *asked, **options: search(*asked, **options)[:3])
    vector = combine(row.embedding for row in sorted(rows[:2], key=lambda row: row.image_id))

    found = ids(Finder(store, lambda: pytest.fail("no encoder is needed")), product_id="p0", limit=15)

    assert found == exact(rows[2:], vector, 15, lambda row: True)


def test_opposites_still_give_an_answer() -> None:
    assert np.linalg.norm(combine([unit(1), -unit(1)])) == pytest.approx(1)


def test_words_find_products(new_store: NewStore, tmp_path: Path) -> None:
    chance = Random(3)
    for colour in COLOURS:
        for shape in SHAPES:
            (tmp_path / f"{colour}-{shape}").mkdir()
            draw(colour, shape, chance).save(tmp_path / f"{colour}-{shape}" / "1.png")
    clip = load_encoder(str(TINY_CLIP))
    finder = Finder(filled(new_store(clip.fingerprint), clip, tmp_path, "{product_id}/{image}"), lambda: clip)

    first = [ids(finder, text=f"a photo of a {c} {s}", limit=1) == [f"{c}-{s}"] for c in COLOURS for s in SHAPES]

    assert sum(first) >= 15
    picture = (tmp_path / "red-circle" / "1.png").read_bytes()
    assert decode(picture).size == (64, 64)
    assert ids(finder, image=picture, text="a red circle", limit=1) == ["red-circle"]
