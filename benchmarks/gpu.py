"""Images per second on a GPU: from JPEG files into a collection, forward pass alone, and decoding alone.

    python benchmarks/gpu.py [--device cuda] [--engine compile] [--images 20000] [--uri http://localhost:19530] [FOLDER]

CLIP ViT-B/32, B/16 and L/14 have random weights, which do not change the speed. The images are those of FOLDER, or
synthetic ones, repeated; appended bytes make each file different. Busy is the GPU utilization that nvidia-smi reports.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.encode.process_tuning import count_cores, keep_freed_memory  # noqa: E402  the path comes first

if TYPE_CHECKING:
    from lookalike.encode.engine import Engine

# Width, layers, heads and patch size of the image tower, width of the text tower, dimension of the projections.
CLIPS = {
    "B/32": (768, 12, 12, 32, 512, 512),
    "B/16": (768, 12, 12, 16, 512, 512),
    "L/14": (1024, 24, 16, 14, 768, 768),
}


class Figures(NamedTuple):
    """Images per second, and the utilization of the GPU between 0 and 1, None without a GPU."""

    ingest: float
    forward: float
    decode: float
    utilization: float | None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=list(CLIPS),
    show_default=True,
    help="One of these sizes of CLIP, or any encoder.",
)
@click.option("--images", default=20_000, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Duration of the measurement of the forward pass.")
@click.option("--num-workers", default=count_cores(), show_default="the cores")
@click.option("--device", default="cuda", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--engine", type=click.Choice(["torch", "compile"]), default="torch", show_default=True)
@click.option("--batch-size", type=int, help="Measured if not set.")
@click.option("--decode-processes", type=int, help="As in `lookalike ingest` if not set.")
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite]")
def main(
    folder: Path | None, models: tuple[str, ...], images: int, seconds: float, num_workers: int, **options: str
) -> None:
    """Measure each model; print one line for it."""
    from lookalike.encode.load_engine import load_engine
    from lookalike.encode.options import EngineConfig

    keep_freed_memory()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        files = _write_images(folder, Path(scratch), images)
        uri = options["uri"] or f"{scratch}/bench.db"
        device = _read_gpu_names() or options["device"]
        print(f"{device}, {count_cores()} cores, {num_workers} decoding threads, {images} images")
        print(
            f"  {'':10} {'batch':>5} {'images/s':>9} {'forward':>9} {'ratio':>6} {'decode':>9} {'ratio':>6} {'busy':>5}"
        )
        for model in models:
            name = _random_clip(model, Path(scratch)) if model in CLIPS else model
            engine = load_engine(name, EngineConfig.from_click({**options, "num_workers": num_workers}))
            figures = _measure(engine, files, uri, num_workers, seconds)
            print(_format_line(model if model in CLIPS else Path(model).name, engine.batch_size, figures), flush=True)


def _measure(engine: "Engine", files: list[Path], uri: str, workers: int, seconds: float) -> Figures:
    import numpy as np

    from lookalike.encode.backends.throughput import measure_throughput
    from lookalike.encode.image_limits import MAX_PIXELS
    from lookalike.encode.pixel_budget import PixelBudget
    from lookalike.ingest.pipeline.concurrency import in_parallel
    from lookalike.ingest.sources.files import image_reader

    budget = PixelBudget(MAX_PIXELS)

    def load_pixels(file: Path) -> "np.ndarray":
        return engine.prepare(image_reader().read(str(file))[0], budget)

    pixels = np.stack([load_pixels(files[0])] * engine.batch_size)
    forward = measure_throughput(engine.encoder, pixels, engine.parallel_batches, seconds)
    started = time.perf_counter()
    for _ in in_parallel(load_pixels, files, workers=workers, ahead=8 * workers):
        pass
    decode = len(files) / (time.perf_counter() - started)
    with _watch_utilization() as read_utilization:
        ingest = len(files) / _time_ingest(engine, files, uri, workers)
    return Figures(ingest, forward, decode, read_utilization())


def _time_ingest(engine: "Engine", files: list[Path], uri: str, workers: int) -> float:
    """Seconds from the first file to the last row that Milvus acknowledged."""
    from lookalike.encode.engine import LazyEngine
    from lookalike.ingest.job import ingest_images
    from lookalike.ingest.pipeline.existing_rows import RowScope
    from lookalike.ingest.pipeline.limits import PipelineLimits
    from lookalike.ingest.pipeline.stages import PipelineContext
    from lookalike.ingest.reports.report import Report
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.product import ProductImage

    images = [ProductImage.named("bench", file.stem, file.name, str(file), {}) for file in files]
    with Store.create(uri, engine.encoder.fingerprint, collection=f"gpu_{time.time_ns()}") as store, Report() as report:
        started = time.perf_counter()
        context = PipelineContext(LazyEngine(lambda: engine), PipelineLimits(workers=workers))
        ingest_images(images, RowScope("bench"), store, report, context)
        seconds = time.perf_counter() - started
    assert report.stored == len(files)
    return seconds


def _format_line(name: str, batch_size: int, figures: Figures) -> str:
    ingest, forward, decode, utilization = figures
    busy = "–" if utilization is None else f"{utilization:.0%}"
    return (
        f"  {name:10} {batch_size:5} {ingest:9.1f} {forward:9.1f} {ingest / forward:6.2f} "
        f"{decode:9.1f} {ingest / decode:6.2f} {busy:>5}"
    )


def _random_clip(size: str, scratch: Path) -> str:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    width, layers, heads, patch, text_width, dim = CLIPS[size]
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    vision = {**tower, "num_attention_heads": heads, "patch_size": patch, "projection_dim": dim}
    text = {
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_attention_heads": text_width // 64,
    }
    folder = scratch / f"clip-{size.replace('/', '-')}"
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=dim)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return str(folder)


def _write_images(folder: Path | None, scratch: Path, images: int) -> list[Path]:
    from lookalike.ingest.sample import draw_catalogue

    if folder is None:
        folder = scratch / "catalogue"
        draw_catalogue(folder)
    contents = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))]
    target = scratch / "photos"
    target.mkdir()
    files = [target / f"{n}.jpg" for n in range(images)]
    for file, content in zip(files, islice(cycle(contents), images), strict=True):
        file.write_bytes(content + file.name.encode())
    return files


def _read_gpu_names() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return ", ".join(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())


@contextmanager
def _watch_utilization() -> Iterator[Callable[[], float | None]]:
    """Sample the utilization of all GPUs; yield a function that returns the average, or None without a GPU."""
    if not shutil.which("nvidia-smi"):
        yield lambda: None
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    samples: list[float] = []

    def average() -> float | None:
        return sum(samples) / len(samples) / 100 if samples else None

    try:
        yield average
    finally:
        process.terminate()
        output, _ = process.communicate()
        samples += [float(line) for line in output.splitlines() if line.strip().isdigit()]


if __name__ == "__main__":
    main()
