"""ONNX Runtime instead of torch: the same vectors; which is faster is measured once and cached."""

import os
import re
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
from lookalike.encode.backends.select import as_torch_encoder
from lookalike.encode.encoder import Encoder, TextEncoder
from lookalike.encode.preprocess import Pixels
from lookalike.encode.registry import load_encoder
from lookalike.ingest.sample import photo, products
from lookalike.schema.errors import EncoderUnavailable

TINY_CLIP = Path(__file__).parents[1] / "tiny_clip"


def fail_if_measured(message: str) -> None:
    pytest.fail(f"it was measured again: {message}")


@pytest.fixture(scope="module")
def measured(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the cache that all tests share, with the default model: exporting it takes ten seconds."""
    return Path(copytree(cache_folder(), tmp_path_factory.mktemp("measured"), dirs_exist_ok=True))


@pytest.fixture(scope="module")
def measured_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOKALIKE_CACHE", str(folder))
        patch.setattr("lookalike.encode.backends.measure.SECONDS", 0.05)
        messages: list[str] = []
        load_encoder(str(TINY_CLIP), engine="auto", on_message=messages.append)
        measuring, measured = messages
        assert re.fullmatch(
            r"measuring whether torch or ONNX Runtime runs .*tiny_clip faster .*\(only once\) …", measuring
        )
        assert re.fullmatch(r"measured: onnx \d+ images/s, torch \d+ images/s; --engine auto uses \w+", measured)
        load_encoder(str(TINY_CLIP), engine="auto", on_message=fail_if_measured)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lookalike.encode.backends.measure.SECONDS", 0.05)
    return tmp_path / "cache"


def prepare_photos(encoder: Encoder) -> Pixels:
    return np.stack([encoder.prepare(photo(product, 0)) for product in products()[:8]])


def test_the_default_encoder_gives_the_same_vectors_with_both_engines(measured: Path, cache: Path) -> None:
    copytree(measured, cache)
    encoder, onnx = load_encoder(engine="torch"), load_encoder(engine="onnx")

    assert isinstance(onnx, OnnxEncoder)
    assert as_torch_encoder(encoder) is encoder
    assert as_torch_encoder(onnx) is None
    assert onnx.fingerprint == encoder.fingerprint
    pixels = prepare_photos(encoder)
    assert np.array_equal(prepare_photos(onnx), pixels)
    by_torch, by_onnx = encoder.encode_images(pixels), onnx.encode_images(pixels)
    assert by_onnx.dtype == np.float32
    assert np.einsum("nd,nd->n", by_torch, by_onnx).min() >= MIN_COSINE
    assert np.abs(onnx.encode_images(pixels[:1]) - by_onnx[:1]).max() < 1e-4, "the batch changes the vector"


def test_a_cached_onnx_model_is_loaded_without_measuring_and_without_torch(measured: Path, cache: Path) -> None:
    copytree(measured, cache)
    load_encoder(engine="auto", on_message=fail_if_measured)

    script = (
        "import sys; from lookalike.encode.registry import load_encoder; from PIL import Image;"
        "from lookalike.encode.backends.select import as_torch_encoder;"
        "encoder = load_encoder(engine='onnx'); pixels = encoder.prepare(Image.new('RGB', (300, 200)));"
        "print(encoder.encode_images(pixels[None]).shape, as_torch_encoder(encoder), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LOOKALIKE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    without_gpu = "(1, 1280) None False\n"
    assert done.stdout == without_gpu or not sys.platform.startswith("linux")


def test_the_chunk_size_changes_the_speed_and_not_the_vectors(measured: Path, cache: Path) -> None:
    copytree(measured, cache)
    encoder = load_encoder(engine="onnx")
    assert isinstance(encoder, OnnxEncoder)
    pixels = np.concatenate([prepare_photos(encoder), prepare_photos(encoder)[:3]])

    encoder.chunk_size = len(pixels)
    together = encoder.encode_images(pixels)
    encoder.chunk_size = 4
    assert np.abs(encoder.encode_images(pixels) - together).max() < 1e-4
    assert choose_chunk_size({1: 20.0, 2: 25.0, 4: 29.5, 8: 30.0, 16: 24.0}) == (4, 29.5)


def test_torch_runs_the_text_tower_beside_an_onnx_model(measured_clip: Path, cache: Path) -> None:
    copytree(measured_clip, cache)
    torch, onnx = load_encoder(str(TINY_CLIP), engine="torch"), load_encoder(str(TINY_CLIP), engine="onnx")

    assert isinstance(onnx, OnnxEncoder)
    assert isinstance(torch, TextEncoder)
    assert isinstance(onnx, TextEncoder)
    assert (
        np.einsum(
            "nd,nd->n", torch.encode_images(prepare_photos(torch)), onnx.encode_images(prepare_photos(torch))
        ).min()
        > MIN_COSINE
    )
    assert np.allclose(torch.encode_texts(["a red mug"]), onnx.encode_texts(["a red mug"]))


def test_torch_runs_a_model_that_cannot_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr(lookalike.encode.backends.onnx, "export_onnx", fail)
    assert not isinstance(load_encoder(engine="auto"), OnnxEncoder)
    with pytest.raises(EncoderUnavailable, match=r"cannot be exported to ONNX: RuntimeError: no such operator; use"):
        load_encoder(engine="onnx")


def test_a_cache_that_cannot_be_written_costs_only_speed(cache: Path) -> None:
    cache.write_text("a file is in the way")
    messages: list[str] = []
    assert not isinstance(load_encoder(engine="auto", on_message=messages.append), OnnxEncoder)
    assert re.search(r"cannot be saved, so torch is used \(.*\); set LOOKALIKE_CACHE", messages[-1])
    with pytest.raises(EncoderUnavailable, match=r"the ONNX model cannot be saved .*; set LOOKALIKE_CACHE"):
        load_encoder(engine="onnx")


@pytest.mark.parametrize(
    "broken", ["engine.json", *(pytest.param(f, marks=pytest.mark.slow) for f in ("model.onnx", "model.onnx.data"))]
)
def test_a_broken_file_in_the_cache_is_replaced(broken: str, measured_clip: Path, cache: Path) -> None:
    copytree(measured_clip, cache)
    [file] = cache_folder().rglob(broken)
    file.write_text("{")
    assert isinstance(load_encoder(str(TINY_CLIP), engine="onnx"), OnnxEncoder)


def test_changed_weights_have_another_cache_folder(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = EngineCache([weights]).folder
    assert EngineCache([weights]).folder == before
    os.utime(weights, ns=(1, 1))
    assert EngineCache([weights]).folder != before


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"device": "cuda"}])
def test_onnx_runs_on_the_cpu_in_full_precision_only(options: dict[str, str]) -> None:
    with pytest.raises(EncoderUnavailable, match="--engine onnx runs on the CPU in float32"):
        load_encoder(engine="onnx", **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_checkpoints_with_files_of_equal_size_and_time_have_their_own_caches(tmp_path: Path) -> None:
    for name in ("one", "other"):
        copytree(TINY_CLIP, tmp_path / name)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1, 1))
    one, other = (load_encoder(str(tmp_path / name), engine="onnx") for name in ("one", "other"))
    assert one.fingerprint.encoder != other.fingerprint.encoder
