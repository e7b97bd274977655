"""Where a model runs, and in which precision."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch

from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES, count_cores
from lookalike.schema.errors import EncoderUnavailable

GPU_PARALLEL_BATCHES = 2
"""Batches at the same time on a GPU: while one is computed, the next is copied there."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Placement(NamedTuple):
    """Where a model runs, and in which precision."""

    device: torch.device
    dtype: torch.dtype


def resolve_device(device: str, dtype: str) -> Placement:
    """Turn `auto`, `cpu`, `cuda:1`, `mps` and `auto`, `float16`, … into a device, the first of several, and a dtype.

    `auto` takes a GPU where there is one, and half precision only there. Raises EncoderUnavailable for a device
    that this machine, or this build of torch, does not have.
    """
    chosen = list_devices(device)[0]
    if dtype != "auto":
        return Placement(chosen, DTYPES[dtype])
    if chosen.type != "cuda":
        return Placement(chosen, torch.float32)
    return Placement(chosen, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


def list_devices(names: str) -> list[torch.device]:
    """Turn `auto` into the best device, `cuda` into all GPUs, and `cuda:0,cuda:1` into these two.

    Raises EncoderUnavailable for a device that this machine, or this build of torch, does not have.
    """
    if names == "auto":
        return [_best_device()]
    if names == "cuda" and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [_named_device(name.strip()) for name in names.split(",")]


def weights_hash(parameters: Mapping[str, torch.Tensor]) -> str:
    """Hash the parameters of a model: 16 hexadecimal digits, the same wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def parallel_batches_on(device: torch.device) -> int:
    """Tune this process for encoding many images; return how many batches should be encoded at the same time.

    It changes the whole process, so only a command calls it, never a library. On a CPU several batches, each on one
    thread, keep all cores busy, also while other threads decode.
    """
    if device.type != "cpu":
        return GPU_PARALLEL_BATCHES if device.type == "cuda" else 1
    parallel_batches = min(count_cores(), MAX_PARALLEL_BATCHES)
    torch.set_num_threads(count_cores() // parallel_batches)
    return parallel_batches


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise NotImplementedError("it computes nothing")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderUnavailable(
            f"device {name!r} cannot be used here ({reason}); use --device auto or cpu, "
            "or install a torch that is built for it"
        ) from error
    return device
