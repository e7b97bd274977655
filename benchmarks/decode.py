"""From a JPEG file to the pixels that a network sees: Pillow as lookalike uses it, and a libjpeg-turbo binding.

    python benchmarks/decode.py [--photos 200] [FOLDER]

Every photo is decoded by all of them in turn, also enlarged to the sizes of cameras and shops; printed are the median
milliseconds of one thread, and how alike the pixels are. The binding is simplejpeg (pip install simplejpeg). Then as
many threads as count_cores decode them, by themselves and by a process each; printed are images a second, and what this
process spends on an image: where that is Python, one thread does it at a time.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path[0] = str(Path(__file__).parents[1])

from lookalike.encode.decode import MAX_PIXELS, decode, load_rgb, open_image, reduce_on_decode  # noqa: E402
from lookalike.encode.decode_pool import DecodePool  # noqa: E402
from lookalike.encode.pixel_budget import PixelBudget  # noqa: E402  the path comes first
from lookalike.encode.preprocess import Preprocessing  # noqa: E402
from lookalike.encode.process_tuning import count_cores  # noqa: E402

Pixels = npt.NDArray[np.uint8]
EDGE = 256
_TIMES = 5
PREPARE = Preprocessing(224, 224, EDGE, Image.Resampling.BICUBIC, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--photos", default=200, show_default=True)
def main(folder: Path | None, photos: int) -> None:
    """Compare, for photos of several sizes."""
    with tempfile.TemporaryDirectory() as scratch:
        files = sorted((folder or _drawn(Path(scratch))).rglob("*.jpg"))
        for edge in (348, 1_044, 2_088):
            contents = [_enlarged(file, edge) for file in islice(files, photos)]
            _compare(edge, contents)
            _together(contents)


def _compare(edge: int, contents: list[bytes]) -> None:
    print(f"{len(contents)} photos, shorter edge {edge}")
    took: dict[str, list[float]] = {name: [] for name in CASES}
    off: dict[str, list[float]] = {name: [] for name in CASES}
    for content in contents:
        whole = PREPARE(decode(content)).astype(np.int16)
        for name, case in CASES.items():
            started = time.perf_counter()
            pixels = case(content)
            took[name].append((time.perf_counter() - started) * 1_000)
            off[name].append(float(np.abs(pixels - whole).mean()))
    for name in CASES:
        print(f"  {name:42} {np.median(took[name]):6.2f} ms   off by {np.mean(off[name]):.2f} of 255", flush=True)


def _together(contents: list[bytes]) -> None:
    threads, budget = count_cores(), PixelBudget(MAX_PIXELS)
    with closing(DecodePool(PREPARE, threads, MAX_PIXELS)) as decoders, ThreadPoolExecutor(threads) as pool:
        for name, decoded in (
            ("threads", _lookalike),
            ("threads, by a process each", lambda content: decoders(content, budget)),
        ):
            list(pool.map(decoded, contents))
            started, before = time.perf_counter(), time.process_time()
            for _ in range(_TIMES):
                list(pool.map(decoded, contents))
            count = _TIMES * len(contents)
            rate, own = count / (time.perf_counter() - started), (time.process_time() - before) / count
            print(f"  {threads} {name:40} {rate:6.0f} /s  {1_000 * own:.2f} ms of this process", flush=True)


def _pillow(content: bytes) -> Pixels:
    return PREPARE(decode(content))


def _lookalike(content: bytes) -> Pixels:
    return PREPARE(load_rgb(reduce_on_decode(open_image(content), EDGE)))


def _simplejpeg(content: bytes) -> Pixels:
    import simplejpeg

    return PREPARE(Image.fromarray(simplejpeg.decode_jpeg(content)))


def _simplejpeg_reduced(content: bytes) -> Pixels:
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(content, min_height=2 * EDGE, min_width=2 * EDGE, fastdct=True, fastupsample=True)
    return PREPARE(Image.fromarray(pixels))


CASES: dict[str, Callable[[bytes], Pixels]] = {
    "Pillow, whole": _pillow,
    "lookalike: Pillow, reduced": _lookalike,
    "libjpeg-turbo, whole": _simplejpeg,
    "libjpeg-turbo, reduced, fast and less exact": _simplejpeg_reduced,
}


def _enlarged(file: Path, edge: int) -> bytes:
    """A JPEG of a photo with that shorter edge."""
    image = Image.open(file).convert("RGB")
    scale = edge / min(image.size)
    written = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(written, "JPEG", quality=90)
    return written.getvalue()


def _drawn(folder: Path) -> Path:
    from lookalike.ingest.sample import draw_catalogue

    draw_catalogue(folder)
    return folder


if __name__ == "__main__":
    main()
