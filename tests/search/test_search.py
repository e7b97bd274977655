"""The answer to a question: the right products, as many as asked for, and none twice."""

import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from conftest import DIM, NewStore, a_row, bring, unit
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
from lookalike.search.ranking import combine, mean
from lookalike.search.ttl_cache import TtlCache

TINY_CLIP = Path(__file__).parents[1] / "tiny_clip"


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

    assert len(ids(Finder(shop.store, fails), product_id="red-plain-mug", limit=3)) == 3


def test_a_mix_lies_between_what_is_mixed(shop: Finder, catalogue: Path) -> None:
    mug = (catalogue / "queries" / "red-plain-mug.jpg").read_bytes()
    mixed = shop.find(Query(image=mug, product_id="blue-checked-shirt", limit=64)).hits
    assert "blue-checked-shirt" not in {hit.product_id for hit in mixed}
    assert {"mug", "shirt"} <= {hit.metadata["category"] for hit in mixed[:12]}


def test_filters_limit_and_min_score(shop: Finder, catalogue: Path) -> None:
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
    ("question", "error", "message"),
    [
        ({}, BadQuery, "nothing is asked"),
        ({"text": "  "}, BadQuery, "the text is empty"),
        ({"text": "a red mug"}, BadQuery, r"'efficientnet-lite0' knows images but no words.*'clip'.*--encoder clip"),
        ({"product_id": "nothing"}, UnknownProduct, "no product 'nothing'"),
        ({"product_id": "x' or product_id != '"}, UnknownProduct, "no product"),
        ({"product_id": "\udcff"}, BadQuery, "UTF-8"),
        ({"image": b"no image"}, BadImage, "not an image"),
        ({"product_id": "red-plain-mug", "limit": 0}, BadQuery, "limit 0 is not between 1 and 1000"),
        ({"product_id": "red-plain-mug", "min_score": float("nan")}, BadQuery, "min_score nan is not between"),
    ],
)
def test_questions_that_cannot_be_answered(
    shop: Finder, question: dict[str, object], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        ids(shop, **question)


def test_another_encoder_is_refused(shop: Finder, catalogue: Path) -> None:
    finder = Finder(shop.store, lambda: load_encoder("pixels"))
    with pytest.raises(EncoderMismatch, match=r"'efficientnet-lite0'.*'pixels' is another encoder"):
        ids(finder, image=next((catalogue / "queries").iterdir()).read_bytes())


# Laws, on rows that are made up.


def scattered(products: int, images: Callable[[int], int]) -> list[ImageRow]:
    """Products with so many images each, in directions drawn at random; `n` counts the products."""
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
    """Forty products; the first has more images than all the others together."""
    store, rows = new_store(), scattered(40, lambda p: 600 if p == 0 else 1 + p % 5)
    store.upsert(rows)
    return Finder(store, lambda: pytest.fail("no encoder is needed")), rows


def exact(rows: list[ImageRow], vector: Vector, limit: int, keep: Callable[[ImageRow], bool]) -> list[str]:
    """The answer by plain numpy: products by their best image."""
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
    vector = mean(row.embedding for row in own)

    found = ids(finder, product_id=f"p{asked}", limit=limit, where=parse_filter([f"n < {below}"]))

    expected = exact(rows, vector, limit, lambda row: row.product_id != f"p{asked}" and row.metadata["n"] < below)
    assert found == expected


@settings(max_examples=25)
@given(asked=st.integers(0, 39), limit=st.integers(1, 12), below=st.integers(0, 40))
def test_pages_neither_repeat_nor_skip(
    crowded: tuple[Finder, list[ImageRow]], asked: int, limit: int, below: int
) -> None:
    finder, _ = crowded
    question = {"product_id": f"p{asked}", "where": parse_filter([f"n < {below}"])}
    whole = ids(finder, **question, limit=40)

    pages, offset = [], 0
    while offset is not None:
        answer = finder.find(Query(**question, limit=limit, offset=offset))  # type: ignore[arg-type]
        assert len(answer.hits) == min(limit, len(whole) - offset)
        pages += [hit.product_id for hit in answer.hits]
        offset = answer.next_offset  # type: ignore[assignment]

    assert pages == whole


directions = st.lists(st.integers(-5, 5), min_size=DIM, max_size=DIM).filter(any)
parts = st.lists(st.tuples(directions, st.floats(0.1, 10)), min_size=1, max_size=4)


@settings(max_examples=50)
@given(like=parts, unlike=parts | st.just([]), factor=st.floats(0.1, 50))
def test_what_is_asked_together_is_combined_as_stated(
    crowded: tuple[Finder, list[ImageRow]],
    like: list[tuple[list[int], float]],
    unlike: list[tuple[list[int], float]],
    factor: float,
) -> None:
    finder, rows = crowded

    def average(weighted: list[tuple[list[int], float]]) -> Vector:
        total: Vector = sum(w * unit(*v).astype(np.float64) for v, w in weighted) / sum(w for _, w in weighted)  # type: ignore[assignment]
        return total

    wanted = average(like) - (0.5 * average(unlike) if unlike else 0)
    assume(np.linalg.norm(wanted) > 1e-3)
    wanted /= np.linalg.norm(wanted)

    def as_parts(weighted: list[tuple[list[int], float]], scale: float) -> tuple[Part, ...]:
        return tuple(Part(vector=[scale * x for x in v], weight=w * scale) for v, w in weighted)

    found = finder.find(Query(like=as_parts(like, factor), unlike=as_parts(unlike, factor), limit=5)).hits
    scores = {row.image_id: float(row.embedding @ wanted) for row in rows}
    assert [hit.score for hit in found] == pytest.approx([scores[hit.image_id] for hit in found], abs=1e-4)
    best = sorted(scores.values())[-1]
    assert found[0].score == pytest.approx(best, abs=1e-4)


def test_a_cut_off_below_the_best(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, _ = crowded
    everything = finder.find(Query(product_id="p7", limit=40)).hits
    near = finder.find(Query(product_id="p7", limit=40, within=0.3)).hits
    assert near == [hit for hit in everything if hit.score >= everything[0].score - 0.3]
    assert 0 < len(near) < len(everything)
    assert finder.find(Query(product_id="p7", within=0)).hits == everything[:1]


def test_several_images_of_a_product(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, rows = crowded
    for hit in finder.find(Query(vector=[1] * DIM, limit=40, per_product=3, where=parse_filter(["n != 4"]))).hits:
        vector = mean([np.ones(DIM, dtype=np.float32)])
        own = sorted((float(row.embedding @ vector) for row in rows if row.product_id == hit.product_id), reverse=True)
        assert [image.score for image in hit.images] == pytest.approx(own[:3], abs=1e-5)
        assert hit.images[0].image_id == hit.image_id


def test_chosen_columns(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, _ = crowded
    hits = finder.find(Query(product_id="p7", fields=("parity", "unknown"))).hits
    assert all(list(hit.metadata) == ["parity"] for hit in hits)


def test_by_a_stored_image(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, rows = crowded
    row = rows[-1]
    expected = exact(rows, row.embedding, 10, lambda other: other.product_id != row.product_id)
    assert ids(finder, image_id=row.image_id) == expected
    with pytest.raises(UnknownProduct, match="no image 'nothing'"):
        ids(finder, image_id="nothing")


def test_many_questions_are_answered_as_each_alone(crowded: tuple[Finder, list[ImageRow]]) -> None:
    finder, _ = crowded
    queries = [Query(product_id=f"p{n}", limit=1 + n % 3, where=parse_filter(["n < 30"][: n % 2])) for n in range(12)]
    queries.insert(5, Query(product_id="nothing"))
    answers = finder.find_many(queries)
    assert isinstance(answers.pop(5), UnknownProduct)
    del queries[5]
    for query, answer in zip(queries, answers, strict=True):
        assert isinstance(answer, SearchResult)
        assert [hit.product_id for hit in answer.hits] == [hit.product_id for hit in finder.find(query).hits]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, "one of image, text"),
        ({"text": "a", "product_id": "b"}, "one of image, text"),
        ({"vector": []}, "not all of them zero"),
        ({"vector": [0.0] * DIM}, "not all of them zero"),
        ({"vector": [math.inf] * DIM}, "finite"),
        ({"text": "a", "weight": 0}, "weight 0 is not above 0"),
        ({"text": "a", "weight": math.nan}, "weight nan"),
        ({"text": "a" * 10_001}, "too long"),
    ],
)
def test_parts_that_mean_nothing(part: dict[str, Any], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        Part(**part)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"offset": 9_991}, "offset 9991 is not between 0 and 9990"),
        ({"offset": -1}, "offset -1"),
        ({"per_product": 0}, "per_product 0"),
        ({"within": -0.1}, "within -0.1"),
        ({"min_score": 1.5}, "min_score 1.5"),
        ({"like": (Part(text="a"),) * 32}, "33 parts are too many"),
    ],
)
def test_numbers_out_of_range(question: dict[str, Any], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        Query(product_id="p", **question)


def test_a_vector_of_another_length(crowded: tuple[Finder, list[ImageRow]]) -> None:
    with pytest.raises(BadQuery, match=f"the vector has 3 numbers; this collection's have {DIM}"):
        ids(crowded[0], vector=[1.0, 2.0, 3.0])


def test_one_product_fills_more_than_a_whole_window(new_store: NewStore) -> None:
    store = new_store()
    crowd = [a_row(f"a/{n}", "a", unit(1, n / 10_000)) for n in range(500)]
    others = [a_row(f"{n}", f"b{n}", unit(0.1, 1, n / 10)) for n in range(9)]
    store.upsert([*crowd, *others, a_row("asked", "asked", unit(1))])
    store.window = 20

    found = ids(Finder(store, lambda: pytest.fail("no encoder is needed")), product_id="asked", limit=10)

    assert found == ["a", *(f"b{n}" for n in range(9))]


def test_products_that_a_graph_does_not_reach_are_found(new_store: NewStore) -> None:
    """A server's graph search may end early; here it is made to, on every backend."""

    class ApproximateStore(Store):
        is_exact = False

    empty = new_store()
    rows = scattered(20, lambda p: 2)
    vector = mean(row.embedding for row in sorted(rows[:2], key=lambda row: row.image_id))

    with ApproximateStore.open(empty.uri, collection=empty.name) as store:
        store.upsert(rows)

        def early(*asked: Any, **options: Any) -> Any:
            return [rows[:3] for rows in store.search_many(*asked, **options)]

        finder = Finder(store, lambda: pytest.fail("no encoder is needed"), search_many=early)
        found = ids(finder, product_id="p0", limit=15)

    assert found == exact(rows[2:], vector, 15, lambda row: True)


def test_what_was_looked_up_before_it_was_forgotten_is_not_remembered() -> None:
    recent: TtlCache[int] = TtlCache(60, 10)
    recent.put("a", 1, recent.forgotten)
    assert recent.get("a") == 1
    looked_up = recent.forgotten
    recent.forget("a")
    recent.put("a", 1, looked_up)
    assert recent.get("a") is None


def test_opposites_still_give_an_answer() -> None:
    assert np.linalg.norm(combine([(1, unit(1)), (1, -unit(1))], [])) == pytest.approx(1)


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
    image = (tmp_path / "red-circle" / "1.png").read_bytes()
    assert decode(image).size == (64, 64)
    assert ids(finder, image=image, text="a red circle", limit=1) == ["red-circle"]
