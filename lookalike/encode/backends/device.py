"""Where a network runs and in which precision."""

import hashlib
from collections.abc import Mapping

import torch

from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES, count_cores
from lookalike.schema.errors import EncoderUnavailable

GPU_PARALLEL_BATCHES = 2
"""Batches at the same time on a GPU: while one is computed, the next is copied there."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def resolve_device(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Turn `auto`, `cpu`, `cuda:1`, `mps` and `auto`, `float16`, … into a device, the first of several, and a dtype.

    `auto` takes a GPU where there is one, and half precision only there. Raises EncoderUnavailable for a device
    that this machine, or this build of torch, does not have.
    """
    chosen = list_devices(device)[0]
    if dtype != "auto":
        return chosen, DTYPES[dtype]
    if chosen.type != "cuda":
        return chosen, torch.float32
    return chosen, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def list_devices(wanted: str) -> list[torch.device]:
    """Turn `auto` into the best device, `cuda` into all GPUs, and `cuda:0,cuda:1` into these; see `placement`."""
    if wanted == "auto":
        return [_best_device()]
    if wanted == "cuda" and torch.cuda.is_available():
        return [torch.device("cuda", place) for place in range(torch.cuda.device_count())]
    return [_named_device(name.strip()) for name in wanted.split(",")]


def weights_hash(parameters: Mapping[str, torch.Tensor]) -> str:
    """Hash the parameters of a network, so that it is known again wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def parallel_batches_on(device: torch.device) -> int:
    """Tune this process for encoding many images; return how many batches should be in the network at once.

    A command calls it, never a library: it changes the whole process. On a CPU several batches on one thread each
    leave no core waiting for another, also while decoding takes its share.
    """
    if device.type != "cpu":
        return GPU_PARALLEL_BATCHES if device.type == "cuda" else 1
    lanes = min(count_cores(), MAX_PARALLEL_BATCHES)
    torch.set_num_threads(count_cores() // lanes)
    return lanes


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
            f"device {name!r} cannot be used here ({reason}); take --device auto or cpu, "
            "or install a torch that is built for it"
        ) from error
    return device
