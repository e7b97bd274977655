"""A search returns the right products, as many as its limit, and none twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Semaphore
from typing import Any

import numpy as np
import pytest
from conftest import DIM, PLAIN, NewStore, a_row, bring, unit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from make_tiny_clip import COLOURS, SHAPES, draw

from lookalike.encode.decode import decode
from lookalike.encode.encoder import Encoder
from lookalike.encode.registry import load_encoder
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import BadImage, BadQuery, EncoderMismatch, UnknownProduct
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import ImageRow, Vector
from lookalike.search.finder import Finder, SearchResult
from lookalike.search.query import Part, Query
from lookalike.search.resolved_query import combine_vectors, mean_vector

TINY_CLIP = Path(__file__).parents[1] / "tiny_clip"


def fill(store: Store, encoder: Encoder, folder: Path, layout: str) -> Store:
    source = FolderSource(folder, Layout(layout))
    assert bring(source.images(), encoder, store, batch_size=32).rejected == 0
    return store


@pytest.fixture(scope="module")
def shop(new_store: NewStore, encoder: Encoder, catalogue: Path) -> Finder:
    """The sample catalogue behind a Finder."""
    store = fill(new_store(encoder.fingerprint), encoder, catalogue / "photos", "{category}/{product_id}/{image}")
    return Finder(store, lambda: encoder)


def ids(finder: Finder, **query: object) -> list[str]:
    return [hit.product_id for hit in finder.find(Query(**query)).hits]  # type: ignore[arg-type]


def test_every_photo_finds_its_own_product_first(shop: Finder, catalogue: Path) -> None:
    for photo in sorted((catalogue / "photos").rglob("1.jpg")):
        hit = shop.find(Query(image=photo.read_bytes(), limit=1)).hits[0]
        assert hit.product_id == photo.parent.name
        assert hit.score == pytest.approx(1, abs=1e-3)
        assert (hit.image, hit.metadata) == (str(photo), {"category": photo.parent.parent.name})


def test_a_photo_that_was_not_ingested_finds_its_product(shop: Finder, catalogue: Path) -> None:
    photos = sorted((catalogue / "queries").iterdir())
    first = [ids(shop, image=photo.read_bytes(), limit=1)[0] == photo.stem for photo in photos]
    assert sum(first) >= len(photos) - 1


def test_a_search_by_product_leaves_that_product_out(shop: Finder) -> None:
    hits = shop.find(Query(product_id="red-plain-mug", limit=64)).hits
    assert len(hits) == len({hit.product_id for hit in hits}) == 63
    assert "red-plain-mug" not in {hit.product_id for hit in hits}
    assert sum(hit.product_id.endswith("-mug") for hit in hits[:7]) >= 4


def test_a_search_by_product_loads_no_encoder(shop: Finder) -> None:
    def fails() -> Encoder:
        raise AssertionError("the encoder was loaded")

    assert len(ids(Finder(shop.store, fails), product_id="red-plain-mug", limit=3)) == 3


def test_a_mixed_query_finds_products_like_each_part(shop: Finder, catalogue: Path) -> None:
    mug = (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()
    mixed = shop.find(Query(image=mug, product_id="blue-checked-shirt", limit=64)).hits
    assert "blue-checked-shirt" not in {hit.product_id for hit in mixed}
    assert {"mug", "shirt"} <= {hit.metadata["category"] for hit in mixed[:12]}


def test_filter_limit_and_min_score_restrict_the_hits(shop: Finder, catalogue: Path) -> None:
    mug = (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()
    bags = shop.find(Query(image=mug, where=parse_filter(["category = bag"]), limit=100)).hits
    assert len(bags) == 8
    assert {hit.metadata["category"] for hit in bags} == {"bag"}
    assert ids(shop, image=mug, where=parse_filter(["category = bag", "category = hat"])) == []
    everything = shop.find(Query(image=mug, limit=64)).hits
    scores = [hit.score for hit in everything]
    assert len(everything) == 64
    assert scores == sorted(scores, reverse=True)
    cut = shop.find(Query(image=mug, limit=64, min_score=scores[9])).hits
    assert [hit.product_id for hit in cut] == [hit.product_id for hit in everything[:10]]


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ({}, BadQuery, "the query is empty"),
        ({"text": "  "}, BadQuery, "the text is empty"),
        ({"text": "a red mug"}, BadQuery, r"'efficientnet-lite0' encodes images but no text.*'clip'.*--encoder clip"),
        ({"product_id": "nothing"}, UnknownProduct, "no product 'nothing'"),
        ({"product_id": "x' or product_id != '"}, UnknownProduct, "no product"),
        ({"product_id": "\udcff"}, BadQuery, "UTF-8"),
        ({"image": b"no image"}, BadImage, "not an image"),
        ({"product_id": "red-plain-mug", "limit": 0}, BadQuery, "limit 0 is not between 1 and 1000"),
        ({"product_id": "red-plain-mug", "min_score": float("nan")}, BadQuery, "min_score nan is not between"),
    ],
)
def test_an_invalid_query_raises_an_error_that_names_the_problem(
    shop: Finder, query: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        ids(shop, **query)


def test_an_encoder_that_does_not_match_the_collection_is_refused(shop: Finder, catalogue: Path) -> None:
    finder = Finder(shop.store, lambda: load_encoder("pixels"))
    with pytest.raises(EncoderMismatch, match=r"'efficientnet-lite0'.*'pixels' is another encoder"):
        ids(finder, image=next((catalogue / "queries").iterdir()).read_bytes())


# Properties, on random rows.


def scattered(products: int, images: Callable[[int], int]) -> list[ImageRow]:
    """Products with `images(n)` images in random directions; the metadata column `n` numbers the products."""
    random = np.random.default_rng(5)

    def vector() -> Vector:
        return unit(*random.normal(size=DIM))

    return [
        a_row(f"{p}/{n}", f"p{p}", vector(), {"n": p, "parity": "even" if p % 2 == 0 else "odd"})
        for p in range(products)
        for n in range(images(p))
    ]


@pytest.fixture(scope="module")
def crowded(new_store: NewStore) -> tuple[Finder, list[ImageRow]]:
    """Forty products; the first one has more images than all others together."""
    store, rows = new_store(), scattered(40, lambda p: 600 if p == 0 else 1 + p % 5)
    store.upsert(rows)
    return Finder(store, lambda: pytest.fail("no encoder is needed")), rows


def exact(rows: list[ImageRow], vector: Vector, limit: int, keep: Callable[[ImageRow], bool]) -> list[str]:
    """The expected result, by plain numpy: products by their best image."""
    best: dict[str, float] = {}
    for row in filter(keep, rows):
        best[row.product_id] = max(best.get(row.product_id, -2), float(row.embedding @ vector))
    return sorted(best, key=lambda product: -best[product])[:limit]


@settings(max_examples=25)
@given(number=st.integers(0, 39), limit=st.integers(1, 45), below=st.integers(0, 40))
def test_a_search_returns_the_k_nearest_distinct_products(
    crowded: tuple[Finder, list[ImageRow]], number: int, limit: int, below: int
) -> None:
    finder, rows = crowded
    own = sorted((row for row in rows if row.product_id == f"p{number}"), key=lambda row: row.image_id)
    vector = mean_vector(row.embedding for row in own)

    found = ids(finder, product_id=f"p{number}", limit=limit, where=parse_filter([f"n < {below}"]))

    expected = exact(rows, vector, limit, lambda row: row.product_id != f"p{number}" and row.metadata["n"] < below)
    assert found == expected


@settings(max_examples=25)
@given(number=st.integers(0, 39), limit=st.integers(1, 12), below=st.integers(0, 40))
def test_pages_neither_repeat_nor_skip_a_product(
    crowded: tuple[Finder, list[ImageRow]], number: int, limit: int, below: int
) -> None:
    finder, _ = crowded
    query = {"product_id": f"p{number}", "where": parse_filter([f"n < {below}"])}
    whole = ids(finder, **query, limit=40)

    pages, offset = [], 0
    while offset is not None:
        result = finder.find(Query(**query, limit=limit, offset=offset))  # type: ignore[arg-type]
        assert len(result.hits) == min(limit, len(whole) - offset)
        pages += [hit.product_id for hit in result.hits]
        offset = result.next_offset  # type: ignore[assignment]

    assert pages == whole


directions = st.lists(st.integers(-5, 5), min_size=DIM, max_size=DIM).filter(any)
parts = st.lists(st.tuples(directions, st.floats(0.1, 10)), min_size=1, max_size=4)


@settings(max_examples=50)
@given(like=parts, unlike=parts | st.just([]), factor=st.floats(0.1, 50))
def test_parts_are_combined_by_the_formula_of_query(
    crowded: tuple[Finder, list[ImageRow]],
    like: list[tuple[list[int], float]],
    unlike: list[tuple[list[int], float]],
    factor: float,
) -> None:
    finder, rows = crowded

    def average(weighted: list[tuple[list[int], float]]) -> Vector:
        total: Vector = sum(w * unit(*v).astype(np.float64) for v, w in weighted) / sum(w for _, w in weighted)  # type: ignore[assignment]
        return total

    expected = average(like) - (0.5 * average(unlike) if unlike else 0)
    assume(np.linalg.norm(expected) > 1e-3)
    expected /= np.linalg.norm(expected)

    def as_parts(weighted: list[tuple[list[int], float]], scale: float) -> tuple[Part, ...]:
        return tuple(Part(vector=[scale * x for x in v], weight=w * scale) for v, w in weighted)

    found = finder.find(Query(like=as_parts(like, factor), unlike=as_parts(unlike, factor), limit=5)).hits
    scores = {row.image_id: float(row.embedding @ expected) for row in rows}
    assert [hit.score for hit in found] == pytest.approx([scores[hit.image_id] for hit in found], abs=1e-4)
    best = sorted(scores.values())[-1]
    assert found[0].score == pytest.approx(best, abs=1e-4)


def test_within_leaves_out_products_far_below_the_best(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, _ = crowded
    everything = finder.find(Query(product_id="p7", limit=40)).hits
    near = finder.find(Query(product_id="p7", limit=40, within=0.3)).hits
    assert near == [hit for hit in everything if hit.score >= everything[0].score - 0.3]
    assert 0 < len(near) < len(everything)
    assert finder.find(Query(product_id="p7", within=0)).hits == everything[:1]


def test_per_product_returns_the_best_images_of_each_product(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, rows = crowded
    for hit in finder.find(Query(vector=[1] * DIM, limit=40, per_product=3, where=parse_filter(["n != 4"]))).hits:
        vector = mean_vector([np.ones(DIM, dtype=np.float32)])
        own = sorted((float(row.embedding @ vector) for row in rows if row.product_id == hit.product_id), reverse=True)
        assert [image.score for image in hit.images] == pytest.approx(own[:3], abs=1e-5)
        assert hit.images[0].image_id == hit.image_id


def test_fields_selects_metadata(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, _ = crowded
    hits = finder.find(Query(product_id="p7", fields=("parity", "unknown"))).hits
    assert all(list(hit.metadata) == ["parity"] for hit in hits)


def test_a_search_by_image_id_leaves_its_product_out(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, rows = crowded
    row = rows[-1]
    expected = exact(rows, row.embedding, 10, lambda other: other.product_id != row.product_id)
    assert ids(finder, image_id=row.image_id) == expected
    with pytest.raises(UnknownProduct, match="no image 'nothing'"):
        ids(finder, image_id="nothing")


def test_several_queries_together_return_what_each_returns_alone(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, _ = crowded
    queries = [Query(product_id=f"p{n}", limit=1 + n % 3, where=parse_filter(["n < 30"][: n % 2])) for n in range(12)]
    queries.insert(5, Query(product_id="nothing"))
    results = finder.find_many(queries)
    assert isinstance(results.pop(5), UnknownProduct)
    del queries[5]
    for query, result in zip(queries, results, strict=True):
        assert isinstance(result, SearchResult)
        assert [hit.product_id for hit in result.hits] == [hit.product_id for hit in finder.find(query).hits]


def test_a_vector_of_another_dimension_is_refused(crowded: tuple[Finder, list[ImageRow]]) -> None:
    with pytest.raises(BadQuery, match=f"the vector has 3 numbers; this collection's have {DIM}"):
        ids(crowded[0], vector=[1.0, 2.0, 3.0])


def test_a_product_with_more_images_than_a_window_hides_no_other(new_store: NewStore) -> None:
    store = new_store()
    crowd = [a_row(f"a/{n}", "a", unit(1, n / 10_000)) for n in range(500)]
    others = [a_row(f"{n}", f"b{n}", unit(0.1, 1, n / 10)) for n in range(9)]
    store.upsert([*crowd, *others, a_row("query", "query", unit(1))])
    store.window = 20

    found = ids(Finder(store, lambda: pytest.fail("no encoder is needed")), product_id="query", limit=10)

    assert found == ["a", *(f"b{n}" for n in range(9))]


def test_products_that_a_graph_search_misses_are_found(server: str) -> None:
    """A graph search may end early; here it always does. Milvus Lite compares every row, and misses none."""
    rows = scattered(20, lambda p: 2)
    vector = mean_vector(row.embedding for row in sorted(rows[:2], key=lambda row: row.image_id))
    with Store.create(server, PLAIN, collection="misses") as store:
        store.upsert(rows)

        def search_early(*arguments: Any, **options: Any) -> Any:
            return [rows[:3] for rows in store.search_many(*arguments, **options)]

        finder = Finder(store, lambda: pytest.fail("no encoder is needed"), search_many=search_early)
        found = ids(finder, product_id="p0", limit=15)

    assert found == exact(rows[2:], vector, 15, lambda row: True)


def test_stages_are_timed_after_the_deadline_is_checked(shop: Finder, encoder: Encoder, catalogue: Path) -> None:
    calls: list[str] = []
    slots = Semaphore(1)

    @contextmanager
    def timer(stage: str) -> Iterator[None]:
        calls.append(stage)
        assert slots.acquire(blocking=False) == (stage != "decode"), "a slot is held while decoding, and only then"
        if stage != "decode":
            slots.release()
        yield

    finder = Finder(
        shop.store, lambda: encoder, timer=timer, check_deadline=lambda: calls.append("check"), decode_slots=slots
    )
    photo = (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()
    finder.find(Query(image=photo, product_id="red-plain-mug", limit=1))
    assert set(calls[1::2]) == {"decode", "encode", "lookup", "search"}
    assert set(calls[::2]) == {"check"}


def test_a_search_past_its_deadline_is_aborted(shop: Finder) -> None:
    def check_deadline() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        ids(Finder(shop.store, pytest.fail, check_deadline=check_deadline), product_id="red-plain-mug")


def test_opposite_vectors_still_give_a_direction() -> None:
    assert np.linalg.norm(combine_vectors([(1, unit(1)), (1, -unit(1))], [])) == pytest.approx(1)


def test_a_text_finds_products(new_store: NewStore, tmp_path: Path) -> None:
    chance = Random(3)
    for colour in COLOURS:
        for shape in SHAPES:
            (tmp_path / f"{colour}-{shape}").mkdir()
            draw(colour, shape, chance).save(tmp_path / f"{colour}-{shape}" / "1.png")
    clip = load_encoder(str(TINY_CLIP))
    finder = Finder(fill(new_store(clip.fingerprint), clip, tmp_path, "{product_id}/{image}"), lambda: clip)

    first = [ids(finder, text=f"a photo of a {c} {s}", limit=1) == [f"{c}-{s}"] for c in COLOURS for s in SHAPES]

    assert sum(first) >= 15
    image = (tmp_path / "red-circle" / "1.png").read_bytes()
    assert decode(image).size == (64, 64)
    assert ids(finder, image=image, text="a red circle", limit=1) == ["red-circle"]
