"""Images per second and peak memory: lookalike, the forward pass alone, and others at their best documented use.

    python benchmarks/ingest.py [--images 768] [--rounds 3] [FOLDER]

Every case runs in a process of its own, the cases in turn, the rounds one after the other; what is printed is the
median of the rounds, and ratios within them. Without FOLDER the images are drawn. Peers that are not installed are
left out: pip install sentence-transformers datasets, and towhee with setuptools below 81.
"""

import importlib.util
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

# This script's own name would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.peers import BUNDLED, PEERS, fits  # noqa: E402  the path comes first
from lookalike.encode.process_tuning import keep_freed_memory  # noqa: E402

if TYPE_CHECKING:
    from lookalike.encode.engine import Engine

OURS = ("lookalike", "forward alone")
_NEEDED = {"sentence-transformers": "sentence_transformers", "datasets map": "datasets", "Towhee pipe": "towhee"}


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
    """Compare, and print a table for each encoder."""
    if case and encoder and folder:
        print(json.dumps(_measure(case, encoder, sorted(folder.rglob("*.jpg"))[:images])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        pictures = folder or _drawn(Path(scratch), images)
        clip = _random_clip(Path(scratch) / "clip")
        print(f"{platform.processor() or platform.machine()}, {_cores()} cores, Python {platform.python_version()}")
        for name, count in ((BUNDLED, images), (str(clip), clip_images)):
            _compare(pictures, name, count, rounds)


def _compare(folder: Path, encoder: str, images: int, rounds: int) -> None:
    cases = [*OURS, *(case for case in PEERS if fits(case, encoder) and _installed(case))]
    found: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            command = [sys.executable, __file__, str(folder), "--case", case, "--encoder", encoder]
            done = subprocess.run([*command, "--images", str(images)], stdout=subprocess.PIPE, text=True, check=True)
            found[case].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"\n{Path(encoder).name}, {images} images, {rounds} rounds")
    print(f"  {'':22} {'images/s':>9} {'of forward alone':>17} {'lookalike is':>13} {'peak MB':>8}")
    for case, measured in found.items():
        rate, memory = (statistics.median(column) for column in zip(*measured, strict=True))
        of_forward, ours = _ratio(found[case], found["forward alone"]), _ratio(found["lookalike"], found[case])
        print(f"  {case:22} {rate:9.1f} {of_forward:17.2f} {ours:12.1f}× {memory:8.0f}", flush=True)


def _ratio(ones: list[tuple[float, float]], others: list[tuple[float, float]]) -> float:
    """The median ratio of two cases within a round."""
    return statistics.median(one[0] / other[0] for one, other in zip(ones, others, strict=True))


def _installed(case: str) -> bool:
    return case not in _NEEDED or importlib.util.find_spec(_NEEDED[case]) is not None


def _measure(case: str, encoder: str, files: list[Path]) -> tuple[float, float]:
    """Images per second of one case, without the time that loading the network takes, and its peak memory in MB.

    That is of this process, without those that a peer starts.
    """
    # Milvus Lite may still be tidying up when its folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if case in OURS:
            keep_freed_memory()
        prepare = {"lookalike": _pipeline, "forward alone": _forward, **PEERS}[case]
        run = prepare(encoder, files, f"{scratch}/bench.db")
        started = time.perf_counter()
        run()
        rate = len(files) / (time.perf_counter() - started)
    return rate, _peak()


def _peak() -> float:
    """The most memory of this process, in MB; what getrusage says begins with that of its parent. 0 but on Linux."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


def _engine(name: str) -> "Engine":
    from lookalike.encode.load_engine import load_engine
    from lookalike.encode.options import EngineConfig

    return load_engine(name, EngineConfig(device="cpu"))


def _pipeline(name: str, files: list[Path], uri: str) -> Callable[[], None]:
    from lookalike.encode.engine import LazyEngine
    from lookalike.encode.process_tuning import count_cores
    from lookalike.ingest.job import ingest_images
    from lookalike.ingest.pipeline.existing_rows import RowScope
    from lookalike.ingest.pipeline.limits import PipelineLimits
    from lookalike.ingest.pipeline.stages import PipelineContext
    from lookalike.ingest.reports.report import Report
    from lookalike.schema.milvus.store import Store
    from lookalike.schema.product import ProductImage

    engine = _engine(name)
    store = Store.create(uri, engine.encoder.fingerprint)
    images = [ProductImage.named("bench", file.parent.name, str(file), str(file), {}) for file in files]

    def run() -> None:
        with Report() as report:
            context = PipelineContext(LazyEngine(lambda: engine), PipelineLimits(workers=count_cores()))
            ingest_images(images, RowScope("bench"), store, report, context)
        assert report.stored == len(files)

    return run


def _forward(name: str, files: list[Path], _uri: str) -> Callable[[], None]:
    """The network on batches that are ready, at its best setting: the limit of every pipeline."""
    import numpy as np

    from lookalike.encode.decode import decode
    from lookalike.ingest.pipeline.concurrency import in_parallel

    engine = _engine(name)
    encoder, size, lanes = engine.encoder, engine.batch_size, engine.parallel_batches
    pixels = [encoder.prepare(decode(file.read_bytes())) for file in files]
    batches = [np.stack(pixels[start : start + size]) for start in range(0, len(pixels), size)]
    list(in_parallel(encoder.encode_images, batches[:lanes], workers=lanes, ahead=lanes))

    def run() -> None:
        for _ in in_parallel(encoder.encode_images, batches, workers=lanes, ahead=lanes):
            pass

    return run


def _drawn(folder: Path, images: int) -> Path:
    from lookalike.ingest.sample import draw_catalogue, products

    draw_catalogue(folder, -(-images // len(products())))
    return folder / "photos"


def _random_clip(folder: Path) -> Path:
    """CLIP ViT-B/32 with random weights, which are as fast as any."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def _cores() -> int:
    from lookalike.encode.process_tuning import count_cores

    return count_cores()


if __name__ == "__main__":
    main()
