"""From the name of an encoder to an engine: load it, and decide by its device how much it does at once."""

import os
from functools import partial
from typing import TYPE_CHECKING

import click

from lookalike.encode.backends.select import as_torch_encoder
from lookalike.encode.encoder import Encoder, preprocessing_of
from lookalike.encode.engine import Engine
from lookalike.encode.options import EngineConfig
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES, count_cores
from lookalike.encode.registry import load_encoder
from lookalike.schema.errors import BadSettings

if TYPE_CHECKING:
    from lookalike.encode.backends.torch import TorchEncoder
    from lookalike.encode.decode_pool import DecodePool

_MAX_THREADS_ALONE = 4
"""More threads than this wait for each other: a small image needs the GIL for a fifth of its time."""

_MAX_PROCESSES = 16
"""Each takes 30 MB, and the memory of its largest image."""

_DEFAULT_BATCH_SIZE = 16


def load_engine(name: str, config: EngineConfig) -> Engine:
    """Load an encoder for a command that encodes many images; it tunes this process, and reports on standard error.

    Raises EncoderUnavailable, and BadSettings for settings that do not fit the encoder.
    """
    parallel_batches = min(count_cores(), MAX_PARALLEL_BATCHES)
    encoder = load_encoder(
        name,
        device=config.device,
        dtype=config.dtype,
        engine=config.engine,
        parallel_batches=parallel_batches,
        on_message=partial(click.echo, err=True),
    )
    torch_encoder = as_torch_encoder(encoder)
    if torch_encoder is not None:
        return _load_on_devices(torch_encoder, config)
    pool = _make_decode_pool(encoder, config, default=0)
    return Engine(encoder, config.batch_size or _DEFAULT_BATCH_SIZE, parallel_batches, pool)


def default_decode_processes(threads: int) -> int:
    """How many processes decode for so many threads while a GPU encodes."""
    return min(threads, _MAX_PROCESSES) if threads > _MAX_THREADS_ALONE and os.name == "posix" else 0


def _load_on_devices(encoder: "TorchEncoder", config: EngineConfig) -> Engine:
    from lookalike.encode.backends.batch_size import choose_batch_size
    from lookalike.encode.backends.compile import compile_models
    from lookalike.encode.backends.device import list_devices, parallel_batches_on
    from lookalike.encode.backends.replicas import replicate

    report = partial(click.echo, err=True)
    is_on_gpu = encoder.device.type == "cuda"
    # First what fails at once.
    threads = config.num_workers or count_cores()
    pool = _make_decode_pool(encoder, config, default=default_decode_processes(threads) if is_on_gpu else 0)
    parallel_batches, batch_size = parallel_batches_on(encoder.device), config.batch_size
    if batch_size is None and is_on_gpu:
        batch_size = choose_batch_size(encoder, parallel_batches, report)
    devices = list_devices(config.device)
    workers = replicate(encoder, devices, parallel_batches) if len(devices) > 1 else [encoder.worker]
    if config.engine == "compile":
        compile_models(encoder, workers, report)
    return Engine(encoder, batch_size or _DEFAULT_BATCH_SIZE, parallel_batches * len(devices), pool)


def _make_decode_pool(encoder: Encoder, config: EngineConfig, *, default: int) -> "DecodePool | None":
    """Make the processes that decode; None where threads do. Raises BadSettings."""
    processes = default if config.decode_processes is None else config.decode_processes
    processes = min(processes, config.num_workers or count_cores())
    if not processes:
        return None
    preprocessing = preprocessing_of(encoder)
    if preprocessing is not None:
        from lookalike.encode.decode_pool import DecodePool

        return DecodePool(preprocessing, processes, config.max_pixels)
    if config.decode_processes:
        raise BadSettings(f"{encoder.fingerprint.encoder} prepares images its own way; leave out --decode-processes")
    return None
