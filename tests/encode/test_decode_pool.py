"""Decoding in processes: the same pixels and reasons as on a thread, also when processes crash."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from command import fails
from PIL import Image

from lookalike.encode.decode_pool import DecodePool
from lookalike.encode.engine import Preparation
from lookalike.encode.image_limits import MAX_PIXELS
from lookalike.encode.load_engine import default_decode_processes, load_engine
from lookalike.encode.options import EngineConfig
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.preprocess import Pixels, Preprocessing
from lookalike.encode.registry import DEFAULT_ENCODER
from lookalike.schema.errors import BadImage, EncoderUnavailable

PREPARE = Preprocessing(32, 24, 40, Image.Resampling.BICUBIC, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def noise_image(width: int, height: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def decode_on_a_thread(content: bytes, max_pixels: int) -> Pixels | str:
    try:
        return Preparation(PREPARE.edge, PREPARE)(content, PixelBudget(max_pixels))
    except BadImage as error:
        return str(error)


def test_processes_give_the_same_pixels_and_reasons_as_a_thread() -> None:
    max_pixels = 100_000
    contents = [
        noise_image(100, 80),
        noise_image(300, 250),
        noise_image(50, 70, "PNG", "RGBA"),
        noise_image(60, 50, "GIF", "P"),
        noise_image(400, 300),
        noise_image(100, 80)[:900],
        b"",
        b"not an image",
    ]
    with closing(DecodePool(PREPARE, 3, max_pixels)) as decoders, ThreadPoolExecutor(8) as pool:
        budget = PixelBudget(max_pixels)

        def decode_in_a_process(content: bytes) -> Pixels | str:
            try:
                return decoders(content, budget)
            except BadImage as error:
                return str(error)

        for ours, content in zip(pool.map(decode_in_a_process, contents * 5), contents * 5, strict=True):
            expected = decode_on_a_thread(content, max_pixels)
            assert ours == expected if isinstance(expected, str) else np.array_equal(ours, expected)


def test_a_process_that_was_killed_is_replaced() -> None:
    content = noise_image(100, 80)
    with closing(DecodePool(PREPARE, 2, MAX_PIXELS)) as decoders:
        before = decoders(content, PixelBudget(MAX_PIXELS))
        for pid in decoders.pids:
            os.kill(pid, signal.SIGKILL)
        for _ in range(4):
            assert np.array_equal(decoders(content, PixelBudget(MAX_PIXELS)), before)


@pytest.fixture
def crashing_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An image that crashes its process, as a bug in the decoder of a format would."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, lookalike.encode.decode as module\n"
        "load_rgb = module.load_rgb\n"
        "module.load_rgb = lambda image: os.kill(os.getpid(), 9) if image.width == 13 else load_rgb(image)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return noise_image(13, 9)


def test_an_image_that_crashes_processes_is_rejected_and_three_in_a_row_end_the_run(crashing_image: bytes) -> None:
    budget = PixelBudget(MAX_PIXELS)
    with closing(DecodePool(PREPARE, 1, MAX_PIXELS)) as decoders:
        for _ in range(3):
            with pytest.raises(BadImage, match=r"2 processes crashed on it \(signal 9\)"):
                decoders(crashing_image, budget)
            assert decoders(noise_image(100, 80), budget).shape == (32, 24, 3)
        for _ in range(2):
            with suppress(BadImage):
                decoders(crashing_image, budget)
        with pytest.raises(
            EncoderUnavailable, match=r"decode processes crash again and again \(signal 9\).*use a smaller"
        ):
            decoders(crashing_image, budget)


def test_a_process_that_cannot_be_started_is_not_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with (
        closing(DecodePool(PREPARE, 1, MAX_PIXELS)) as decoders,
        pytest.raises(EncoderUnavailable, match=r"cannot be started \(exit status 1\); use --decode-processes 0"),
    ):
        decoders(noise_image(100, 80), PixelBudget(MAX_PIXELS))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_processes_end_with_their_parent() -> None:
    script = (
        "import sys; from encode.test_decode_pool import *; decoders = DecodePool(PREPARE, 1, MAX_PIXELS);"
        "decoders(noise_image(100, 80), PixelBudget(MAX_PIXELS)); print(*decoders.pids, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}/cmdline")
        assert b"lookalike.encode.decode_pool" in child.read_bytes()
        parent.kill()
    deadline = time.monotonic() + 10
    # The command line of a process that has ended is empty, or gone.
    while child.exists() and child.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_large_images_wait_for_the_budget_and_small_ones_do_not() -> None:
    max_pixels = 100_000
    budget, small, large = PixelBudget(max_pixels), noise_image(200, 100), noise_image(300, 300, "PNG")
    with closing(DecodePool(PREPARE, 3, max_pixels)) as decoders, ThreadPoolExecutor(3) as pool:
        while len(decoders.pids) < 3:
            list(pool.map(lambda _: decoders(small, budget), range(9)))
        with budget.reserve(max_pixels):
            waiting = [pool.submit(decoders, large, budget) for _ in range(2)]
            assert not wait(waiting, timeout=0.5).done
            assert pool.submit(decoders, small, budget).result().shape == (32, 24, 3)
        assert all(np.array_equal(one.result(), decode_on_a_thread(large, max_pixels)) for one in waiting)


def test_an_ingest_starts_at_most_as_many_processes_as_threads(catalogue: Path) -> None:
    config = EngineConfig(device="cpu", engine="torch")
    content = next(catalogue.rglob("*.jpg")).read_bytes()
    plain = load_engine(DEFAULT_ENCODER, config)
    assert plain.decoders is None
    engine = load_engine(DEFAULT_ENCODER, replace(config, num_workers=2, decode_processes=5))
    assert engine.decoders is not None
    with closing(engine.decoders) as decoders:
        budget = PixelBudget(MAX_PIXELS)
        assert np.array_equal(engine.prepare(content, budget), plain.prepare(content, budget))
        assert len(decoders.pids) == 1


@pytest.mark.skipif(os.name != "posix", reason="processes decode on POSIX only")
@pytest.mark.parametrize(("threads", "expected"), [(1, 0), (4, 0), (5, 5), (16, 16), (64, 16)])
def test_on_a_gpu_many_threads_get_decode_processes(threads: int, expected: int) -> None:
    assert default_decode_processes(threads) == expected


def test_decode_processes_are_refused_for_an_encoder_with_its_own_preprocessing(
    catalogue: Path, tmp_path: Path
) -> None:
    message = fails(2, "ingest", catalogue / "photos", "--encoder=pixels", "--decode-processes=2", cwd=tmp_path)
    assert "pixels prepares images its own way; leave out --decode-processes" in message
