"""Where a network runs and in which precision."""

import hashlib
from collections.abc import Mapping

import torch

from encode.machine import MOST_LANES, cores
from schema.errors import EncoderUnavailable

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def placement(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Turn `auto`, `cpu`, `cuda:1`, `mps` and `auto`, `float16`, … into a device and a dtype.

    `auto` takes a GPU where there is one, and half precision only there. Raises EncoderUnavailable for a device
    that this machine, or this build of torch, does not have.
    """
    chosen = _best_device() if device == "auto" else _named_device(device)
    if dtype != "auto":
        return chosen, DTYPES[dtype]
    if chosen.type != "cuda":
        return chosen, torch.float32
    return chosen, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def weights_hash(parameters: Mapping[str, torch.Tensor]) -> str:
    """Hash the parameters of a network, so that it is known again wherever it was loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()[:16]


def own_process(device: torch.device) -> int:
    """Tune this process for encoding many pictures; return how many batches should be in the network at once.

    A command calls it, never a library: it changes the whole process. On a CPU several batches on one thread each
    leave no core waiting for another, also while decoding takes its share; a GPU takes one batch after the other.
    """
    if device.type != "cpu":
        return 1
    lanes = min(cores(), MOST_LANES)
    torch.set_num_threads(cores() // lanes)
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
