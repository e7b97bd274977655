"""The parts that routes share: the deadline, the timer and the decode slots apart; batches; the thumbnail cache."""

import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import bring
from PIL import Image
from serving import until

from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import Layout
from lookalike.schema.errors import UnknownProduct
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vectors
from lookalike.search.finder import Finder
from lookalike.search.query import Query
from lookalike.serve.runtime.batching import BatchedTextEncoder, batch_encoder
from lookalike.serve.runtime.deadline import (
    Deadline,
    DeadlineExceeded,
    check_deadline,
    current_deadline,
    deadline_scope,
)
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.runtime.thumbnails import ThumbnailCache


class TextPixelEncoder(PixelEncoder):
    """Encodes a text of n letters as the n-th axis, one at a time when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.let = threading.Event()

    def encode_images(self, batch: Pixels) -> Vectors:
        self.begun.set()
        self.let.wait(30)
        return super().encode_images(batch)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return np.eye(self.fingerprint.dim, dtype=np.float32)[[len(text) for text in texts]]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    noise(width, height).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two products: `small`, and `large` whose file has more than 4 MB."""
    for name, edge in (("small", 80), ("large", 1_300)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        noise(edge, edge).save(tmp_path / "photos" / name / "1.png")
    encoder = PixelEncoder()
    with Store.create(str(tmp_path / "runtime.db"), encoder.fingerprint) as opened:
        source = FolderSource(tmp_path / "photos", Layout("{product_id}/{image}"))
        assert bring(source.images(), encoder, opened).rejected == 0
        yield opened


def image_ids(store: Store) -> dict[str, str]:
    return {row["product_id"]: row["image_id"] for row in store.rows(fields=["product_id"])}


def test_check_deadline_raises_after_the_deadline_and_does_nothing_without_one() -> None:
    check_deadline()
    with deadline_scope(Deadline(60)):
        check_deadline()
    with deadline_scope(Deadline(0)), pytest.raises(DeadlineExceeded, match=r"no answer within 0 s.*try again"):
        check_deadline()
    abandoned = Deadline(60)
    abandoned.abandon()
    assert abandoned.seconds_left == 0
    with deadline_scope(abandoned), pytest.raises(DeadlineExceeded, match="abandoned"):
        check_deadline()
    assert current_deadline() is None


def test_the_timer_only_measures() -> None:
    metrics = Metrics()
    with deadline_scope(Deadline(0)), metrics.time_stage("decode"):
        pass
    with pytest.raises(ValueError, match="of the stage"), metrics.time_stage("decode"):
        raise ValueError("of the stage")
    assert b'lookalike_stage_seconds_count{stage="decode"} 2.0' in metrics.to_text()


def test_each_stage_checks_the_deadline_and_is_timed_and_decoding_waits_for_a_slot(store: Store) -> None:
    events: list[str] = []

    @contextmanager
    def timer(stage: str) -> Iterator[None]:
        events.append(stage)
        yield

    slots = threading.Semaphore(0)
    finder = Finder(store, PixelEncoder, timer=timer, check_deadline=lambda: events.append("check"), decode_slots=slots)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(finder.find, Query(image=png(80, 80), limit=1))
        with pytest.raises(TimeoutError):
            future.result(0.3)
        assert "decode" not in events
        slots.release()
        assert future.result(30).hits[0].product_id == "small"
    stages = [event for event in events if event != "check"]
    assert stages[:3] == ["decode", "encode", "search"]
    assert all(events[events.index(stage) - 1] == "check" for stage in stages)
    assert slots.acquire(blocking=False), "the slot is free again"


def test_a_passed_deadline_stops_a_search_before_its_next_stage_and_frees_the_slot(store: Store) -> None:
    metrics, slots = Metrics(), threading.Semaphore(1)
    finder = Finder(store, PixelEncoder, timer=metrics.time_stage, check_deadline=check_deadline, decode_slots=slots)
    with deadline_scope(Deadline(0)), pytest.raises(DeadlineExceeded):
        finder.find(Query(image=png(80, 80)))
    assert b"lookalike_stage_seconds_count" not in metrics.to_text()
    assert slots.acquire(blocking=False)


def test_images_and_texts_of_one_batch_get_their_own_vectors() -> None:
    encoder, sizes = TextPixelEncoder(), list[int]()
    batched = batch_encoder(encoder, 16, 1, sizes.append)
    assert isinstance(batched, BatchedTextEncoder)
    pixels = [batched.prepare(noise(40, 40, seed)) for seed in range(3)]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batched.encode_images, pixels[0][None])
        assert encoder.begun.wait(10)
        texts = pool.submit(batched.encode_texts, ["a", "bcd"])
        until(lambda: batched.queue_length == 2)
        images = pool.submit(batched.encode_images, np.stack(pixels[1:]))
        until(lambda: batched.queue_length == 4)
        encoder.let.set()
        assert first.result(30).shape == (1, encoder.dim)
        assert texts.result(30).argmax(axis=1).tolist() == [1, 3]
        np.testing.assert_allclose(images.result(30), encoder.encode_images(np.stack(pixels[1:])))
    batched.close()
    assert sizes == [1, 2, 2], "one call for the images of a batch, one for its texts"


def test_an_encoder_without_texts_has_no_encode_texts() -> None:
    batched = batch_encoder(PixelEncoder(), 16, 1, lambda size: None)
    assert not isinstance(batched, BatchedTextEncoder)
    batched.close()


def test_thumbnails_and_small_originals_are_read_once_and_large_originals_each_time(store: Store) -> None:
    cache, ids = ThumbnailCache(PixelBudget(10**7)), image_ids(store)
    small = cache.get_image(store, ids["small"], 64)
    assert max(Image.open(io.BytesIO(small.content)).size) == 64
    assert cache.get_image(store, ids["small"], 64) is small
    original = cache.get_image(store, ids["small"], None)
    assert cache.get_image(store, ids["small"], None) is original
    assert original.etag != small.etag
    large = cache.get_image(store, ids["large"], None)
    assert len(large.content) > 4 * 2**20
    assert cache.get_image(store, ids["large"], None) is not large


def test_the_thumbnail_of_a_missing_file_is_served_while_it_is_cached(store: Store, tmp_path: Path) -> None:
    cache, image_id = ThumbnailCache(PixelBudget(10**7)), image_ids(store)["small"]
    make_thumbnail = cache.get_image(store, image_id, 64)
    (tmp_path / "photos" / "small" / "1.png").unlink()
    assert cache.get_image(store, image_id, 64) is make_thumbnail
    with pytest.raises(UnknownProduct, match="missing or is no longer an image"):
        cache.get_image(store, image_id, 128)
    with pytest.raises(UnknownProduct, match="no image 'nothing'"):
        cache.get_image(store, "nothing", 64)
