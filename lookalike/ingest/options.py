"""Options that the commands share which encode images, and the engine that is made of them."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from lookalike.encode.decode import MAX_PIXELS, PIXEL_CEILING
from lookalike.encode.fetch.limits import MAX_PER_HOST
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES, count_cores
from lookalike.schema.errors import BadSettings
from lookalike.schema.output import format_option
from lookalike.schema.settings import LOCAL_ENGINES, encoder_options, setting

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder
    from lookalike.encode.decode_pool import DecodePool
    from lookalike.encode.encoder import Encoder
    from lookalike.encode.engine import Engine
    from lookalike.ingest.run_lock import Shutdown
    from lookalike.ingest.sources.files import ImageReader

Command = TypeVar("Command", bound=Callable[..., Any])

_THREADS_SUFFICE = 4
"""More than so many threads wait for each other: a small image needs Python's lock for a fifth of its time."""

_MOST_PROCESSES = 16
"""Each takes 30 MB, and what its largest image does."""

_USUAL = 16
"""Images in a batch where nothing is measured."""


def engine_options(command: Command, engines: tuple[str, ...] = LOCAL_ENGINES) -> Command:
    """Add --batch-size, --num-workers, --decode-processes, --max-pixels, --device and --dtype."""
    processes = setting(
        "--decode-processes",
        type=click.IntRange(0, 256),
        help="Processes that decode for the threads.  [default: none; on a GPU with more than 4 threads, as many]",
    )
    workers = setting(
        "--num-workers", type=click.IntRange(1, 256), help="Threads that read and decode.  [default: the cores]"
    )
    return engine_settings(workers(processes(command)), engines)


def engine_settings(command: Command, engines: tuple[str, ...] = LOCAL_ENGINES) -> Command:
    """Add --batch-size, --max-pixels, --device and --dtype."""
    pixels = setting(
        "--max-pixels", type=click.IntRange(1, PIXEL_CEILING), help="Larger images are rejected.  [default: 64000000]"
    )
    batch = setting(
        "--batch-size", type=click.IntRange(1, 4096), help="Images in a batch.  [default: 16; measured once on a GPU]"
    )
    return batch(pixels(encoder_options(command, engines)))


def url_options(command: Command) -> Command:
    """Add --allow-private-urls and --max-per-host."""
    private = setting(
        "--allow-private-urls",
        is_flag=True,
        help="Read images also from URLs that lead to this machine or to a private network.",
    )
    per_host = setting(
        "--max-per-host",
        type=click.IntRange(1, 256),
        default=MAX_PER_HOST,
        show_default=True,
        help="Images that are fetched from one web server at once.",
    )
    return private(per_host(command))


def reader_of(options: dict[str, Any], stop: "Shutdown") -> "ImageReader":
    """The reader that these options describe; it stops waiting for a server when `stop` asks for the end."""
    from lookalike.ingest.sources.files import image_reader

    private, per_host = options["allow_private_urls"], options["max_per_host"]
    return image_reader(allow_private=private, per_host=per_host, cancelled=stop.event)


def report_options(command: Command) -> Command:
    """Add --report, --format and --no-progress."""
    report = setting(
        "--report", type=click.Path(path_type=Path), help="JSONL file: one line a rejected or changed image."
    )
    quiet = click.option("--no-progress", is_flag=True, help="Show no progress bar.")
    return report(format_option("table", "json")(quiet(command)))


def load_engine(name: str, options: dict[str, Any]) -> "Engine":
    """Load an encoder, and decide by the device it is on how much it works on at once."""
    from lookalike.encode.engine import Engine
    from lookalike.encode.registry import load_encoder

    lanes = min(count_cores(), MAX_PARALLEL_BATCHES)
    encoder = load_encoder(
        name,
        device=options["device"],
        dtype=options["dtype"],
        # On Ray each worker finds out for itself.
        engine="auto" if options["engine"] == "ray" else options["engine"],
        parallel_batches=lanes,
        on_message=partial(click.echo, err=True),
    )
    if not hasattr(encoder, "worker"):
        return Engine(encoder, options["batch_size"] or _USUAL, lanes, _decoders(encoder, options, usual=0))
    return _on_devices(cast("TorchEncoder", encoder), options)


def beside_gpu(threads: int) -> int:
    """How many processes decode for so many threads where a GPU waits for them."""
    return min(threads, _MOST_PROCESSES) if threads > _THREADS_SUFFICE and os.name == "posix" else 0


def _decoders(encoder: "Encoder", options: dict[str, Any], usual: int) -> "DecodePool | None":
    """Processes that decode, as many as are wanted; a service, and Ray's workers, have no such option and none."""
    wanted, threads = options.get("decode_processes", 0), options.get("num_workers") or count_cores()
    count = min(usual if wanted is None else wanted, threads)
    if not count:
        return None
    from lookalike.encode.decode_pool import DecodePool
    from lookalike.encode.preprocess import Preprocessing

    prepare = getattr(encoder, "prepare_image", None)
    if isinstance(prepare, Preprocessing):
        return DecodePool(prepare, count, options["max_pixels"] or MAX_PIXELS)
    if wanted:
        raise BadSettings(f"{encoder.fingerprint.encoder} prepares images its own way; leave out --decode-processes")
    return None


def _on_devices(encoder: "TorchEncoder", options: dict[str, Any]) -> "Engine":
    from lookalike.encode.backends.batch_size import choose_batch_size
    from lookalike.encode.backends.compile import compile_models
    from lookalike.encode.backends.device import list_devices, parallel_batches_on
    from lookalike.encode.backends.replicas import replicate
    from lookalike.encode.engine import Engine

    tell = partial(click.echo, err=True)
    on_gpu = encoder.device.type == "cuda"
    # First what is refused at once.
    decoders = _decoders(encoder, options, beside_gpu(options.get("num_workers") or count_cores()) if on_gpu else 0)
    lanes, size = parallel_batches_on(encoder.device), options["batch_size"]
    if size is None and on_gpu:
        size = choose_batch_size(encoder, lanes, tell)
    all_of_them = list_devices(options["device"])
    workers = replicate(encoder, all_of_them, lanes) if len(all_of_them) > 1 else [encoder.worker]
    if options["engine"] == "compile":
        compile_models(encoder, workers, tell)
    return Engine(encoder, size or _USUAL, lanes * len(all_of_them), decoders)
