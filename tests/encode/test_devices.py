"""Devices: out of memory, measured batch sizes, several devices, torch.compile, and two batches at the same time.

No GPU is needed: a model that raises OutOfMemoryError for more than so many images behaves as one on a full device.
"""

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config
from click.testing import CliRunner
from conftest import bring
from PIL import Image
from torch import nn

from benchmarks.gpu import main as benchmark
from lookalike.encode.backends.batch_size import double_while_faster, measure_batch_size
from lookalike.encode.backends.compile import compile_models
from lookalike.encode.backends.device import Placement, list_devices, parallel_batches_on
from lookalike.encode.backends.parity import MIN_COSINE, lowest_cosine
from lookalike.encode.backends.replicas import replicate
from lookalike.encode.backends.torch import TorchEncoder, TorchModel
from lookalike.encode.engine import Engine, LazyEngine
from lookalike.encode.load_engine import load_engine
from lookalike.encode.models.pixels import PixelEncoder
from lookalike.encode.options import EngineConfig
from lookalike.encode.preprocess import Normalization, Pixels, Preprocessing
from lookalike.encode.registry import DEFAULT_ENCODER, load_encoder
from lookalike.ingest.pipeline.concurrency import in_parallel
from lookalike.ingest.pipeline.limits import PipelineLimits
from lookalike.ingest.sources.folder import FolderSource
from lookalike.ingest.sources.layout import FolderRule
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderUnavailable
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import Vectors
from lookalike.serve.runtime.batching import batch_encoder

CPU = torch.device("cpu")
SIDE = 4


class FlatPixels(nn.Module):
    """Returns the pixels as features; runs out of memory for more than `max_images` images."""

    def __init__(self, max_images: int = 10**9) -> None:
        super().__init__()
        self.max_images = max_images
        self.batch_sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batch_sizes.append(len(images))
        if len(images) > self.max_images:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 20.00 MiB.")
        return images.flatten(1)


def on_cpu(features: nn.Module) -> TorchEncoder:
    normalization = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    prepare = Preprocessing(SIDE, SIDE, None, Image.Resampling.BILINEAR, *normalization)
    fingerprint = Fingerprint("flat-pixels", "none", 3 * SIDE * SIDE, "flatten", prepare.describe())
    placement = Placement(CPU, torch.float32)
    return TorchEncoder(TorchModel(features, normalization, placement), prepare, fingerprint, placement)


def noise_images(count: int) -> Pixels:
    return np.random.default_rng(0).integers(1, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones() -> None:
    small = FlatPixels(max_images=5)
    encoder = on_cpu(small)

    first, second = encoder.encode_images(noise_images(40)), encoder.encode_images(noise_images(13))

    assert np.array_equal(first, on_cpu(FlatPixels()).encode_images(noise_images(40)))
    assert np.array_equal(second, on_cpu(FlatPixels()).encode_images(noise_images(13)))
    assert small.batch_sizes == [40, 20, 10, *[5] * 8, 5, 5, 3]


def test_when_one_image_does_not_fit_the_message_says_what_to_do() -> None:
    with pytest.raises(EncoderUnavailable, match=r"'cpu' does not hold .* one image.*Tried to allocate.*--dtype"):
        on_cpu(FlatPixels(max_images=0)).encode_images(noise_images(3))


def test_runs_and_services_continue_when_a_batch_does_not_fit(tmp_path: Path) -> None:
    encoder = on_cpu(FlatPixels(max_images=3))
    for number, pixels in enumerate(noise_images(20)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    with Store.create(str(tmp_path / "test.db"), encoder.fingerprint) as store:
        assert bring(FolderSource(tmp_path, FolderRule()).images(), encoder, store).stored == 20

    service = batch_encoder(encoder, batch_size=64, lanes=2, observe=lambda size: None)
    assert np.array_equal(service.encode_images(noise_images(20)), on_cpu(FlatPixels()).encode_images(noise_images(20)))
    service.close()


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({16: 1000.0, 32: 1800.0, 64: 1900.0, 128: 1990.0}, 64),
        ({16: 1000.0, 32: 1800.0, 64: 0.0}, 32),
        ({16: 0.0, 32: 0.0}, 16),
        ({16: 1.0, 32: 2.0, 64: 4.0, 128: 8.0, 256: 16.0}, 256),
    ],
    ids=["until it is no longer faster", "until out of memory", "from the smallest", "to the largest"],
)
def test_the_batch_size_is_doubled_while_that_is_faster(speeds: dict[int, float], expected: int) -> None:
    assert double_while_faster(speeds.__getitem__) == expected


def test_the_measured_batch_size_fits_into_memory() -> None:
    assert measure_batch_size(on_cpu(FlatPixels(max_images=9)), parallel_batches=2, seconds=0.01) == 8


class RunsInPairs(FlatPixels):
    """Continues only while another copy of it runs too."""

    barrier = threading.Barrier(2)
    copies: set[int] = set()  # noqa: RUF012  shared by all copies

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.copies.add(id(self))
        self.barrier.wait(timeout=10)
        return super().forward(images)


def test_several_devices_share_the_batches_and_keep_their_order() -> None:
    encoder, batches = on_cpu(RunsInPairs()), np.split(noise_images(48), 12)
    replicate(encoder, [CPU, CPU], parallel_batches=1)

    vectors = list(in_parallel(encoder.encode_images, batches, workers=4, ahead=len(batches)))

    assert np.array_equal(np.concatenate(vectors), on_cpu(FlatPixels()).encode_images(noise_images(48)))
    assert len(RunsInPairs.copies) == 2


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="no compiler for torch.compile: install g++")


@pytest.mark.slow
@needs_compiler
def test_compiled_models_give_the_same_vectors() -> None:
    encoder = on_cpu(FlatPixels())
    expected = encoder.encode_images(noise_images(7))

    compile_models(encoder, replicate(encoder, [CPU, CPU], parallel_batches=1), on_message=lambda message: None)

    for size in (7, 7, 1, 3):
        assert lowest_cosine(encoder.encode_images(noise_images(7)[:size]), expected[:size]) >= MIN_COSINE


def test_a_command_compiles_with_engine_compile(capsys: pytest.CaptureFixture[str]) -> None:
    # A compiler would take most of a minute.
    with torch._dynamo.config.patch(disable=True):
        engine = load_engine(DEFAULT_ENCODER, EngineConfig(device="cpu", engine="compile"))

    assert isinstance(engine.encoder, TorchEncoder)
    assert re.search(r"compiling efficientnet-lite0.*\ncompiled in \d+ s", capsys.readouterr().err)


class ChangedWhenCompiled(FlatPixels):
    """Gives other features once it is compiled: for any batch, or for one image alone."""

    def __init__(self, factor: float, for_one: float) -> None:
        super().__init__()
        self.factor, self.for_one = factor, for_one

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            return images.flatten(1)
        return images.flatten(1) * (self.for_one if len(images) == 1 else self.factor)


@needs_compiler
@pytest.mark.parametrize("factors", [(-1.0, 1.0), (1.0, float("nan"))])
def test_a_compiled_model_that_gives_other_vectors_is_refused(factors: tuple[float, float]) -> None:
    encoder = on_cpu(ChangedWhenCompiled(*factors))
    with pytest.raises(
        EncoderUnavailable, match=r"flat-pixels gives other vectors on cpu \(cosine (-1|nan).*--engine torch"
    ):
        compile_models(encoder, [encoder.worker], on_message=lambda message: None)


def test_without_a_compiler_the_message_says_what_to_use() -> None:
    encoder = on_cpu(FlatPixels())
    without = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True})
    with (
        without,
        pytest.raises(EncoderUnavailable, match=r"cannot be compiled here \(.*compiler.*\); use --engine torch"),
    ):
        compile_models(encoder, [encoder.worker], on_message=lambda message: None)


def test_several_devices_can_be_named() -> None:
    engine = load_engine(DEFAULT_ENCODER, EngineConfig(device="cpu,cpu"))
    plain = load_encoder(engine="torch")

    pixels = np.stack([plain.prepare(Image.new("RGB", (50, 40), colour)) for colour in ("red", "blue")])
    assert np.einsum("nd,nd->n", engine.encoder.encode_images(pixels), plain.encode_images(pixels)) == pytest.approx(1)
    assert engine.parallel_batches > parallel_batches_on(CPU)
    with pytest.raises(EncoderUnavailable, match="'cuda:99' cannot be used here"):
        list_devices("cpu, cuda:99")


class Device(PixelEncoder):
    """Computes one batch at a time, and only while another is on its way, except for the last one."""

    def __init__(self, batches: int) -> None:
        self.batches, self.arrived, self.inside, self.max_inside = batches, 0, 0, 0
        self.changed, self.computing = threading.Condition(), threading.Lock()

    def encode_images(self, batch: Pixels) -> Vectors:
        with self.changed:
            self.arrived, self.inside = self.arrived + 1, self.inside + 1
            self.max_inside = max(self.max_inside, self.inside)
            self.changed.notify_all()
        with self.computing, self.changed:
            assert self.changed.wait_for(lambda: self.inside > 1 or self.arrived == self.batches, timeout=10)
            self.inside -= 1
        return super().encode_images(batch)


def test_a_batch_is_on_its_way_while_another_is_computed() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 16, 16, 3), dtype=np.uint8)
    device = Device(len(pixels))
    model = LazyEngine(lambda: Engine(device, batch_size=8, parallel_batches=2))

    encoded = in_parallel(model.encode, map(list, pixels), workers=PipelineLimits().batches, ahead=len(pixels))

    for vectors, batch in zip(encoded, pixels, strict=True):
        assert np.array_equal(vectors, PixelEncoder().encode_images(batch))
    assert device.max_inside == 2


def test_the_number_of_waiting_batches_is_limited() -> None:
    produced = 0

    def batches() -> Iterator[int]:
        nonlocal produced
        for batch in range(1, 101):
            produced = batch
            yield batch

    for taken in in_parallel(lambda batch: batch, batches(), workers=4, ahead=5):
        assert produced - taken <= 5
    assert taken == 100


def test_the_benchmark_for_gpus_runs_without_one(tmp_path: Path) -> None:
    Image.fromarray(noise_images(1)[0]).save(tmp_path / "a.jpg")
    result = CliRunner().invoke(
        benchmark, [str(tmp_path), "--device=cpu", "--images=8", "--seconds=0.1", "--model=pixels"]
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"pixels +16( +[\d.]+){5} ", result.output)


def test_no_image_is_lost_when_two_threads_lower_the_batch_size_at_once() -> None:
    encoder = on_cpu(FlatPixels(max_images=100))
    pixels = np.random.default_rng(0).integers(0, 256, (1_000, SIDE, SIDE, 3), dtype=np.uint8)
    whole = on_cpu(FlatPixels()).encode_images(pixels)

    class Less(FlatPixels):
        """Each time it runs, another thread has found meanwhile that fewer images fit."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            encoder.worker.max_batch = max(1, min(encoder.worker.max_batch, len(images)) // 2)
            return super().forward(images)

    encoder.model.features = Less(max_images=100)
    assert np.array_equal(encoder.encode_images(pixels), whole)
