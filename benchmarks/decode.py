"""Decoding, from a JPEG file to the input of an encoder: Pillow as lookalike uses it, and a libjpeg-turbo binding.

    python benchmarks/decode.py [--photos 200] [FOLDER]

Each case decodes every photo in turn, at its own size and enlarged to the sizes that cameras and shops use. Prints the
median milliseconds on one thread, and the difference of the pixels. The binding is simplejpeg (pip install simplejpeg).
Then one thread per core decodes the photos, alone and with a process for each thread. Prints images per second, and the
CPU time that this process spends on an image: of that, Python's part runs on one thread at a time.
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

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])

from lookalike.encode.decode import decode, load_rgb, open_image, reduce_on_decode  # noqa: E402
from lookalike.encode.decode_pool import DecodePool  # noqa: E402
from lookalike.encode.image_limits import MAX_PIXELS  # noqa: E402
from lookalike.encode.pixel_budget import PixelBudget  # noqa: E402  the path comes first
from lookalike.encode.preprocess import Preprocessing  # noqa: E402
from lookalike.encode.process_tuning import count_cores  # noqa: E402

Pixels = npt.NDArray[np.uint8]
EDGE = 256
_REPEATS = 5
PREPARE = Preprocessing(224, 224, EDGE, Image.Resampling.BICUBIC, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--photos", default=200, show_default=True)
def main(folder: Path | None, photos: int) -> None:
    """Compare the cases for photos of several sizes."""
    with tempfile.TemporaryDirectory() as scratch:
        files = sorted((folder or _draw_photos(Path(scratch))).rglob("*.jpg"))
        for edge in (348, 1_044, 2_088):
            contents = [_enlarge(file, edge) for file in islice(files, photos)]
            _compare_cases(edge, contents)
            _compare_parallel(contents)


def _compare_cases(edge: int, contents: list[bytes]) -> None:
    print(f"{len(contents)} photos, shorter edge {edge}")
    times: dict[str, list[float]] = {name: [] for name in CASES}
    differences: dict[str, list[float]] = {name: [] for name in CASES}
    for content in contents:
        reference = PREPARE(decode(content)).astype(np.int16)
        for name, case in CASES.items():
            started = time.perf_counter()
            pixels = case(content)
            times[name].append((time.perf_counter() - started) * 1_000)
            differences[name].append(float(np.abs(pixels - reference).mean()))
    for name in CASES:
        print(
            f"  {name:42} {np.median(times[name]):6.2f} ms   difference {np.mean(differences[name]):.2f} of 255",
            flush=True,
        )


def _compare_parallel(contents: list[bytes]) -> None:
    threads, budget = count_cores(), PixelBudget(MAX_PIXELS)
    with closing(DecodePool(PREPARE, threads, MAX_PIXELS)) as decode_pool, ThreadPoolExecutor(threads) as executor:
        for name, case in (
            ("threads", _lookalike),
            ("threads, with a process each", lambda content: decode_pool(content, budget)),
        ):
            list(executor.map(case, contents))
            started, cpu_before = time.perf_counter(), time.process_time()
            for _ in range(_REPEATS):
                list(executor.map(case, contents))
            count = _REPEATS * len(contents)
            rate, cpu_seconds = count / (time.perf_counter() - started), (time.process_time() - cpu_before) / count
            print(f"  {threads} {name:40} {rate:6.0f} /s  {1_000 * cpu_seconds:.2f} ms CPU in this process", flush=True)


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
    "libjpeg-turbo, reduced, fast modes": _simplejpeg_reduced,
}


def _enlarge(file: Path, edge: int) -> bytes:
    """Resize a photo to a shorter edge of `edge` pixels; return the JPEG."""
    image = Image.open(file).convert("RGB")
    scale = edge / min(image.size)
    output = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(output, "JPEG", quality=90)
    return output.getvalue()


def _draw_photos(folder: Path) -> Path:
    from lookalike.ingest.sample import draw_catalogue

    draw_catalogue(folder)
    return folder


if __name__ == "__main__":
    main()
