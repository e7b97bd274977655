"""Images per second and peak memory of an ingest: lookalike, the forward pass alone, and other libraries.

    python benchmarks/ingest.py [--images 768] [--rounds 3] [FOLDER]

Each case runs in a separate process; the cases alternate within each round. Prints the median of the rounds, and the
median ratio within a round. Without FOLDER the images are synthetic. Libraries that are not installed are skipped:
pip install sentence-transformers datasets, and towhee with setuptools below 81.
"""

import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.command import read_peak_memory  # noqa: E402  the path comes first
from benchmarks.peers import BUNDLED, PEERS, supports  # noqa: E402
from lookalike.encode.process_tuning import count_cores, keep_freed_memory  # noqa: E402

if TYPE_CHECKING:
    from lookalike.encode.engine import Engine

OURS = ("lookalike", "forward alone")
_MODULES = {"sentence-transformers": "sentence_transformers", "datasets map": "datasets", "Towhee pipe": "towhee"}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--images", default=768, show_default=True)
@click.option("--clip-images", default=192, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--case", hidden=True)
@click.option("--encoder", hidden=True)
def main(
    folder: Path | None, images: int, clip_images: int, rounds: int, case: str | None, encoder: str | None
) -> None:
    """Compare the cases, and print a table for each encoder."""
    if case and encoder and folder:
        print(json.dumps(_measure(case, encoder, sorted(folder.rglob("*.jpg"))[:images])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        photos = folder or _draw_photos(Path(scratch), images)
        clip = _random_clip(Path(scratch) / "clip")
        print(
            f"{platform.processor() or platform.machine()}, {count_cores()} cores, Python {platform.python_version()}"
        )
        for name, count in ((BUNDLED, images), (str(clip), clip_images)):
            _compare(photos, name, count, rounds)


def _compare(folder: Path, encoder: str, images: int, rounds: int) -> None:
    cases = [*OURS, *(case for case in PEERS if supports(case, encoder) and _is_installed(case))]
    results: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            command = [sys.executable, __file__, str(folder), "--case", case, "--encoder", encoder]
            done = subprocess.run([*command, "--images", str(images)], stdout=subprocess.PIPE, text=True, check=True)
            results[case].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"\n{Path(encoder).name}, {images} images, {rounds} rounds")
    print(f"  {'':22} {'images/s':>9} {'of forward alone':>17} {'speedup of ours':>16} {'peak MB':>8}")
    for case, measured in results.items():
        rate, memory = (statistics.median(column) for column in zip(*measured, strict=True))
        of_forward, ours = _ratio(results[case], results["forward alone"]), _ratio(results["lookalike"], results[case])
        print(f"  {case:22} {rate:9.1f} {of_forward:17.2f} {ours:15.1f}× {memory:8.0f}", flush=True)


def _ratio(first: list[tuple[float, float]], second: list[tuple[float, float]]) -> float:
    """The median, over the rounds, of the ratio between the speeds of two cases."""
    return statistics.median(one[0] / other[0] for one, other in zip(first, second, strict=True))


def _is_installed(case: str) -> bool:
    return case not in _MODULES or importlib.util.find_spec(_MODULES[case]) is not None


def _measure(case: str, encoder: str, files: list[Path]) -> tuple[float, float]:
    """Images per second of one case, without the time to load the model, and the peak memory of this process in MB.

    Memory of child processes that a library starts is not counted.
    """
    # Milvus Lite may still write files while its folder is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if case in OURS:
            keep_freed_memory()
        prepare = {"lookalike": _prepare_pipeline, "forward alone": _prepare_forward, **PEERS}[case]
        run = prepare(encoder, files, f"{scratch}/bench.db")
        started = time.perf_counter()
        run()
        rate = len(files) / (time.perf_counter() - started)
    return rate, read_peak_memory()


def _load_engine(name: str) -> "Engine":
    from lookalike.encode.load_engine import load_engine
    from lookalike.encode.options import EngineConfig

    return load_engine(name, EngineConfig(device="cpu"))


def _prepare_pipeline(name: str, files: list[Path], uri: str) -> Callable[[], None]:
    from lookalike.encode.engine import LazyEngine
    from lookalike.ingest.job import ingest_images
    from lookalike.ingest.pipeline.existing_rows import RowScope
    from lookalike.ingest.pipeline.limits import PipelineLimits
    from lookalike.ingest.pipeline.stages import PipelineContext
    from lookalike.ingest.reports.report import Report
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.product import ProductImage

    engine = _load_engine(name)
    store = Store.create(uri, engine.encoder.fingerprint)
    images = [ProductImage.named("bench", file.parent.name, str(file), str(file), {}) for file in files]

    def run() -> None:
        with Report() as report:
            context = PipelineContext(LazyEngine(lambda: engine), PipelineLimits(workers=count_cores()))
            ingest_images(images, RowScope("bench"), store, report, context)
        assert report.stored == len(files)

    return run


def _prepare_forward(name: str, files: list[Path], _uri: str) -> Callable[[], None]:
    """The forward pass on prepared batches, with lookalike's settings: the upper limit of any pipeline."""
    import numpy as np

    from lookalike.encode.decode import decode
    from lookalike.ingest.pipeline.concurrency import in_parallel

    engine = _load_engine(name)
    encoder, size, parallel = engine.encoder, engine.batch_size, engine.parallel_batches
    pixels = [encoder.prepare(decode(file.read_bytes())) for file in files]
    batches = [np.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    list(in_parallel(encoder.encode_images, batches[:parallel], workers=parallel, ahead=parallel))

    def run() -> None:
        for _ in in_parallel(encoder.encode_images, batches, workers=parallel, ahead=parallel):
            pass

    return run


def _draw_photos(folder: Path, images: int) -> Path:
    from lookalike.ingest.sample import draw_catalogue, products

    draw_catalogue(folder, -(-images // len(products())))
    return folder / "photos"


def _random_clip(folder: Path) -> Path:
    """Save CLIP ViT-B/32 with random weights, which do not change the speed; return its folder."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
