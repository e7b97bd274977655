"""Engines: ONNX Runtime in the place of torch, with the same vectors; measured once, and kept."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

import lookalike.encode.backends.onnx
from lookalike.encode.backends.cache import EngineCache, cache_folder
from lookalike.encode.backends.measure import choose_chunk_size
from lookalike.encode.backends.onnx import OnnxEncoder
from lookalike.encode.backends.parity import MIN_COSINE
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import load_encoder
from lookalike.ingest.sample import photo, products
from lookalike.schema.errors import EncoderUnavailable

TINY_CLIP = Path(__file__).parents[1] / "tiny_clip"


@pytest.fixture(scope="module")
def measured(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the default network, which takes ten seconds to export: the one of all tests, copied."""
    return Path(copytree(cache_folder(), tmp_path_factory.mktemp("measured"), dirs_exist_ok=True))


@pytest.fixture(scope="module")
def measured_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(folder))
        patch.setattr("lookalike.encode.backends.measure.SECONDS", 0.05)
        told: list[str] = []
        load_encoder(str(TINY_CLIP), engine="auto", on_message=told.append)
        assert "measuring whether" in told[0]
        load_encoder(str(TINY_CLIP), engine="auto", on_message=lambda message: pytest.fail("it was measured already"))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lookalike.encode.backends.measure.SECONDS", 0.05)
    return tmp_path / "cache"


def prepared(encoder: Encoder) -> Pixels:
    return np.stack([encoder.prepare(photo(product, 0)) for product in products()[:8]])


def test_the_default_network_has_the_same_vectors_in_both(measured: Path, cache: Path) -> None:
    copytree(measured, cache)
    encoder, onnx = load_encoder(engine="torch"), load_encoder(engine="onnx")

    assert isinstance(onnx, OnnxEncoder)
    assert onnx.fingerprint == encoder.fingerprint
    pixels = prepared(encoder)
    assert np.array_equal(prepared(onnx), pixels)
    ones, others = encoder.encode_images(pixels), onnx.encode_images(pixels)
    assert others.dtype == np.float32
    assert np.einsum("nd,nd->n", ones, others).min() >= MIN_COSINE
    assert np.abs(onnx.encode_images(pixels[:1]) - others[:1]).max() < 1e-4, "a batch has no part in it"


def test_what_was_measured_is_kept_and_needs_no_torch(measured: Path, cache: Path) -> None:
    copytree(measured, cache)
    load_encoder(engine="auto", on_message=lambda message: pytest.fail("it was measured already"))

    script = (
        "import sys; from lookalike.encode.registry import load_encoder; from PIL import Image;"
        "encoder = load_encoder(engine='onnx'); pixels = encoder.prepare(Image.new('RGB', (300, 200)));"
        "print(encoder.encode_images(pixels[None]).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LOOKALIKE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    no_gpu = "(1, 1280) False\n"
    assert done.stdout == no_gpu or not sys.platform.startswith("linux")


def test_as_many_images_at_once_as_pay(measured: Path, cache: Path) -> None:
    copytree(measured, cache)
    encoder = load_encoder(engine="onnx")
    assert isinstance(encoder, OnnxEncoder)
    pixels = np.concatenate([prepared(encoder), prepared(encoder)[:3]])

    encoder.chunk_size = len(pixels)
    together = encoder.encode_images(pixels)
    encoder.chunk_size = 4
    assert np.abs(encoder.encode_images(pixels) - together).max() < 1e-4
    assert choose_chunk_size({1: 20.0, 2: 25.0, 4: 29.5, 8: 30.0, 16: 24.0}) == (4, 29.5)


def test_a_model_with_words_has_them_from_torch(measured_clip: Path, cache: Path) -> None:
    copytree(measured_clip, cache)
    torch, onnx = load_encoder(str(TINY_CLIP), engine="torch"), load_encoder(str(TINY_CLIP), engine="onnx")

    assert isinstance(onnx, OnnxEncoder)
    assert isinstance(torch, TextEncoder)
    assert isinstance(onnx, TextEncoder)
    assert (
        np.einsum("nd,nd->n", torch.encode_images(prepared(torch)), onnx.encode_images(prepared(torch))).min()
        > MIN_COSINE
    )
    assert np.allclose(torch.encode_texts(["a red mug"]), onnx.encode_texts(["a red mug"]))


def test_a_network_that_cannot_be_exported_runs_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(lookalike.encode.backends.onnx, "export_onnx", fails)
    assert not isinstance(load_encoder(engine="auto"), OnnxEncoder)
    with pytest.raises(EncoderUnavailable, match=r"cannot be exported to ONNX: RuntimeError: no such operator; use"):
        load_encoder(engine="onnx")


def test_a_cache_that_cannot_be_written_costs_speed_only(cache: Path) -> None:
    cache.write_text("a file is in the way")
    told: list[str] = []
    assert not isinstance(load_encoder(engine="auto", on_message=told.append), OnnxEncoder)
    assert "set LOOKALIKE_CACHE" in told[-1]
    with pytest.raises(EncoderUnavailable, match="set LOOKALIKE_CACHE"):
        load_encoder(engine="onnx")


@pytest.mark.parametrize(
    "broken", ["engine.json", *(pytest.param(f, marks=pytest.mark.slow) for f in ("network.onnx", "network.onnx.data"))]
)
def test_what_is_kept_but_broken_is_made_again(broken: str, measured_clip: Path, cache: Path) -> None:
    copytree(measured_clip, cache)
    [told] = cache_folder().rglob(broken)
    told.write_text("{")
    assert isinstance(load_encoder(str(TINY_CLIP), engine="onnx"), OnnxEncoder)


def test_other_weights_are_another_network(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = EngineCache([weights]).folder
    assert EngineCache([weights]).folder == before
    os.utime(weights, ns=(1, 1))
    assert EngineCache([weights]).folder != before


@pytest.mark.parametrize("wanted", [{"dtype": "bfloat16"}, {"device": "cuda"}])
def test_onnx_is_for_the_cpu_in_full_precision(wanted: dict[str, str]) -> None:
    with pytest.raises(EncoderUnavailable, match="--engine onnx runs on the CPU in float32"):
        load_encoder(engine="onnx", **wanted)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_checkpoints_whose_files_look_the_same_are_kept_apart(tmp_path: Path) -> None:
    for name in ("one", "other"):
        copytree(TINY_CLIP, tmp_path / name)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1, 1))
    one, other = (load_encoder(str(tmp_path / name), engine="onnx") for name in ("one", "other"))
    assert one.fingerprint.encoder != other.fingerprint.encoder
