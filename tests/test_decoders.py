"""Decoding in processes: the same pixels and reasons as on a thread, whatever becomes of the processes."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import fails, lookalike

from encode.budget import PixelBudget
from encode.decode import MAX_PIXELS
from encode.decoders import Decoders
from encode.preprocess import Pixels, Preprocessing
from ingest.model import Preparation
from schema.errors import BadImage, EncoderUnavailable
from schema.reads import Fields
from schema.store import Store

PREPARE = Preprocessing(32, 24, 40, Image.Resampling.BICUBIC, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def picture(width: int, height: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def on_a_thread(content: bytes, most: int) -> Pixels | str:
    try:
        return Preparation(PREPARE.edge, PREPARE)(content, PixelBudget(most))
    except BadImage as error:
        return str(error)


def test_pixels_and_reasons_are_those_of_a_thread() -> None:
    most = 100_000
    contents = [
        picture(100, 80),
        picture(300, 250),
        picture(50, 70, "PNG", "RGBA"),
        picture(60, 50, "GIF", "P"),
        picture(400, 300),
        picture(100, 80)[:900],
        b"",
        b"no picture",
    ]
    with Decoders(PREPARE, 3, most) as decoders, ThreadPoolExecutor(8) as pool:
        budget = PixelBudget(most)

        def decoded(content: bytes) -> Pixels | str:
            try:
                return decoders(content, budget)
            except BadImage as error:
                return str(error)

        for ours, content in zip(pool.map(decoded, contents * 5), contents * 5, strict=True):
            expected = on_a_thread(content, most)
            assert ours == expected if isinstance(expected, str) else np.array_equal(ours, expected)


def test_a_process_that_was_killed_is_replaced() -> None:
    content = picture(100, 80)
    with Decoders(PREPARE, 2, MAX_PIXELS) as decoders:
        before = decoders(content, PixelBudget(MAX_PIXELS))
        for pid in decoders.pids:
            os.kill(pid, signal.SIGKILL)
        for _ in range(4):
            assert np.array_equal(decoders(content, PixelBudget(MAX_PIXELS)), before)


def test_a_picture_that_processes_die_of_is_rejected() -> None:
    with Decoders(PREPARE, 1, MAX_PIXELS) as decoders, ThreadPoolExecutor(1) as pool:
        decoded = pool.submit(decoders, picture(2_000, 2_000, "PNG"), PixelBudget(MAX_PIXELS))
        while not decoded.done():
            for pid in decoders.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with pytest.raises(BadImage, match="2 processes died while they decoded it"):
            decoded.result()
        assert decoders(picture(100, 80), PixelBudget(MAX_PIXELS)).shape == (32, 24, 3)


def test_that_no_process_can_begin_is_no_fault_of_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    content = picture(100, 80)
    with (
        Decoders(PREPARE, 1, MAX_PIXELS) as decoders,
        pytest.raises(EncoderUnavailable, match=r"cannot be started \(exit status 1\); take --decode-processes 0"),
    ):
        decoders(content, PixelBudget(MAX_PIXELS))


def test_large_pictures_wait_for_the_budget_and_small_ones_do_not() -> None:
    most = 100_000
    budget, small, large = PixelBudget(most), picture(200, 100), picture(300, 300, "PNG")
    with Decoders(PREPARE, 4, most) as decoders, ThreadPoolExecutor(4) as pool:
        with budget.take(most):
            waiting = [pool.submit(decoders, large, budget) for _ in range(2)]
            assert pool.submit(decoders, small, budget).result().shape == (32, 24, 3)
            assert not any(one.done() for one in waiting)
        assert all(np.array_equal(one.result(), on_a_thread(large, most)) for one in waiting)


def test_rows_are_the_same(catalogue: Path, tmp_path: Path) -> None:
    def rows(*options: str) -> list[Fields]:
        store = tmp_path / f"{len(options)}.db"
        photos = catalogue / "photos" / "bag"
        done = lookalike("ingest", photos, "--uri", store, "--engine=torch", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with Store.open(str(store)) as opened:
            fields = ("image_id", "image_hash", "embedding")
            return sorted(opened.rows(fields=fields), key=lambda row: str(row["image_id"]))

    for ours, theirs in zip(rows("--decode-processes=2"), rows(), strict=True):
        assert ours["image_hash"] == theirs["image_hash"]
        assert np.allclose(ours["embedding"], theirs["embedding"], atol=1e-5)


def test_pictures_that_are_prepared_otherwise_stay_on_threads(catalogue: Path, tmp_path: Path) -> None:
    told = fails(2, "ingest", catalogue / "photos", "--encoder=pixels", "--decode-processes=2", cwd=tmp_path)
    assert "pixels prepares pictures its own way; leave out --decode-processes" in told
