"""Images per second on a GPU: from JPEG files into a collection, the network alone, and decoding alone.

    python benchmarks/gpu.py [--device cuda] [--engine compile] [--images 20000] [--uri http://localhost:19530] [FOLDER]

CLIP ViT-B/32, B/16 and L/14 have random weights, which are as fast as any. The files are those of FOLDER, or drawn
ones, again and again, each made another by bytes after its end. The device is busy when nvidia-smi sees a kernel.
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

# benchmarks/ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.encode.process_tuning import count_cores, keep_freed_memory  # noqa: E402  the path comes first

if TYPE_CHECKING:
    from lookalike.encode.engine import Engine

# Width, layers, heads and patch of the image's tower, width of the words' tower and of both projections.
CLIPS = {
    "B/32": (768, 12, 12, 32, 512, 512),
    "B/16": (768, 12, 12, 16, 512, 512),
    "L/14": (1024, 24, 16, 14, 768, 768),
}


class Found(NamedTuple):
    """Images a second, and the share of the time in which the device was busy."""

    whole: float
    forward: float
    decode: float
    busy: float | None


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--model", "models", multiple=True, default=list(CLIPS), show_default=True, help="Or any encoder.")
@click.option("--images", default=20_000, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="For which the network alone is measured.")
@click.option("--num-workers", default=count_cores(), show_default="the cores")
@click.option("--device", default="cuda", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
@click.option("--engine", type=click.Choice(["torch", "compile"]), default="torch", show_default=True)
@click.option("--batch-size", type=int, help="Measured, without it.")
@click.option("--decode-processes", type=int, help="As `lookalike ingest` would have them, without it.")
@click.option("--uri", help="A Milvus server; without it, Milvus Lite.")
def main(
    folder: Path | None, models: tuple[str, ...], images: int, seconds: float, num_workers: int, **options: str
) -> None:
    """Measure each model, and print a line for it."""
    from lookalike.encode.load_engine import load_engine
    from lookalike.encode.options import EngineConfig

    keep_freed_memory()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        files = _files(folder, Path(scratch), images)
        uri = options["uri"] or f"{scratch}/bench.db"
        print(
            f"{_device_name() or options['device']}, {count_cores()} cores, {num_workers} threads decode, {images} images"
        )
        print(
            f"  {'':10} {'batch':>5} {'images/s':>9} {'forward':>9} {'of it':>6} {'decode':>9} {'of it':>6} {'busy':>5}"
        )
        for model in models:
            name = _random_clip(model, Path(scratch)) if model in CLIPS else model
            engine = load_engine(name, EngineConfig.from_click({**options, "num_workers": num_workers}))
            found = _measure(engine, files, uri, num_workers, seconds)
            print(_line(Path(model).name if model not in CLIPS else model, engine.batch_size, found), flush=True)


def _measure(engine: "Engine", files: list[Path], uri: str, workers: int, seconds: float) -> Found:
    import numpy as np

    from lookalike.encode.backends.throughput import measure_throughput
    from lookalike.encode.decode import MAX_PIXELS
    from lookalike.encode.pixel_budget import PixelBudget
    from lookalike.ingest.pipeline.concurrency import in_parallel
    from lookalike.ingest.sources.files import image_reader

    budget = PixelBudget(MAX_PIXELS)

    def prepared(file: Path) -> "np.ndarray":
        return engine.prepare(image_reader().read(str(file))[0], budget)

    pixels = np.stack([prepared(files[0])] * engine.batch_size)
    forward = measure_throughput(engine.encoder, pixels, engine.parallel_batches, seconds)
    started = time.perf_counter()
    for _ in in_parallel(prepared, files, workers=workers, ahead=8 * workers):
        pass
    decode = len(files) / (time.perf_counter() - started)
    with _busy() as busy:
        whole = len(files) / _ingest(engine, files, uri, workers)
    return Found(whole, forward, decode, busy())


def _ingest(engine: "Engine", files: list[Path], uri: str, workers: int) -> float:
    """Seconds from the first file to the last row that Milvus has acknowledged."""
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
        taken = time.perf_counter() - started
    assert report.stored == len(files)
    return taken


def _line(name: str, batch: int, found: Found) -> str:
    whole, forward, decode, busy = found
    seen = "–" if busy is None else f"{busy:.0%}"
    return (
        f"  {name:10} {batch:5} {whole:9.1f} {forward:9.1f} {whole / forward:6.2f} "
        f"{decode:9.1f} {whole / decode:6.2f} {seen:>5}"
    )


def _random_clip(size: str, scratch: Path) -> str:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    width, layers, heads, patch, words, projected = CLIPS[size]
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    vision = {**tower, "num_attention_heads": heads, "patch_size": patch, "projection_dim": projected}
    text = {"hidden_size": words, "intermediate_size": 4 * words, "num_attention_heads": words // 64}
    folder = scratch / f"clip-{size.replace('/', '-')}"
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=projected)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return str(folder)


def _files(folder: Path | None, scratch: Path, images: int) -> list[Path]:
    from lookalike.ingest.sample import draw_catalogue

    if folder is None:
        folder = scratch / "drawn"
        draw_catalogue(folder)
    contents = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))]
    made = scratch / "photos"
    made.mkdir()
    files = [made / f"{place}.jpg" for place in range(images)]
    for file, content in zip(files, islice(cycle(contents), images), strict=True):
        file.write_bytes(content + file.name.encode())
    return files


def _device_name() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return ", ".join(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines())


@contextmanager
def _busy() -> Iterator[Callable[[], float | None]]:
    """Watch how busy all GPUs are, on average; None where there is none."""
    if not shutil.which("nvidia-smi"):
        yield lambda: None
        return
    asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    watching = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
    seen: list[float] = []

    def busy() -> float | None:
        return sum(seen) / len(seen) / 100 if seen else None

    try:
        yield busy
    finally:
        watching.terminate()
        told, _ = watching.communicate()
        seen += [float(line) for line in told.splitlines() if line.strip().isdigit()]


if __name__ == "__main__":
    main()
