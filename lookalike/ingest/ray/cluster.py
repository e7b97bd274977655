"""A Ray cluster: join it, or start Ray here; its tasks read and decode images wherever there is a CPU.

Bytes and pixels stay with the workers: this process only gets references to them. These are tasks of Ray's core: Ray
Data has no place for what is decided, image by image, between reading and decoding.
"""

import os
import signal
import socket
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError, WorkerCrashedError

from lookalike.encode.engine import Content, Preparation, Prepared
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.ingest.sources import files
from lookalike.schema.errors import BadImage, EncoderUnavailable, LookalikeError
from lookalike.schema.product import FileState

TRIES = 4
"""How many workers may die of the same work."""

_PATIENCE = 10.0


class Cluster(NamedTuple):
    """What a cluster has: CPUs to read and decode on, and how many networks it is to run."""

    cpus: int
    networks: int
    on_gpu: bool


def connect(device: str) -> Cluster:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine, unless that was done.

    There is a network for each GPU, or for each machine where there is none. Raises EncoderUnavailable.
    """
    if not ray.is_initialized():
        _join(os.environ.get("RAY_ADDRESS") or "local")
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if not cpus:
        raise EncoderUnavailable("the Ray cluster has no CPU to read and decode images on; start it with --num-cpus")
    if gpus and device != "cpu":
        return Cluster(cpus, gpus, on_gpu=True)
    return Cluster(cpus, sum(node["Alive"] for node in ray.nodes()), on_gpu=False)


def read(image: str, known: FileState | None, *, allow_private: bool) -> tuple[Content, FileState] | None:
    """Have an image read, unless it is still the one that is known; its bytes stay where that was done.

    Raises BadImage.
    """
    told, content = _read.remote(image, known, allow_private)
    file: FileState | None = _told(told)
    return None if file is None else (content, file)


def prepare(content: Content, preparation: Any, max_pixels: int) -> Prepared:
    """Have an image prepared, near its bytes if there is room; `preparation` is a reference too. Raises BadImage."""
    told, pixels = _prepare.remote(content, preparation, max_pixels)
    _told(told)
    return pixels


def failed(error: RayError) -> LookalikeError:
    """Make what Ray has raised an error of ours, the one that a worker has raised where it is one."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, LookalikeError):
        return error.cause
    reason = str(error).strip().splitlines()[-1] or type(error).__name__
    return EncoderUnavailable(f"Ray has failed ({reason}); what is counted as stored is kept, run it again")


def _join(address: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise EncoderUnavailable(
            f"there is no Ray at RAY_ADDRESS {address!r} ({error}); start it there with 'ray start --head', or leave "
            "RAY_ADDRESS out for a Ray on this machine only"
        ) from error
    finally:
        # Ray puts its own in the place of ours, which ends a run between two batches.
        signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Fail in seconds where Ray would go on trying for minutes. Raises OSError, ValueError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _told(reference: Any) -> Any:
    """What a task has told; an image that it found bad is raised."""
    try:
        told = ray.get(reference)
    except WorkerCrashedError as error:
        raise BadImage(f"{TRIES} Ray workers died of it") from error
    except RayError as error:
        raise failed(error) from error
    if isinstance(told, BadImage):
        raise told
    return told


# A bad image is a value: of two references an error would be in both, and nobody looks at the second.


def _read_here(image: str, known: FileState | None, allow_private: bool) -> tuple[FileState | BadImage | None, bytes]:
    try:
        read = files.image_reader(allow_private=allow_private).read_changed(image, known)
    except BadImage as error:
        return error, b""
    content, file = read or (b"", None)
    return file, content


def _prepare_here(content: bytes, preparation: Preparation, max_pixels: int) -> tuple[BadImage | None, Any]:
    try:
        return None, preparation(content, PixelBudget(max_pixels))
    except BadImage as error:
        return error, None


_read = ray.remote(num_returns=2, max_retries=TRIES - 1)(_read_here)
_prepare = ray.remote(num_returns=2, max_retries=TRIES - 1)(_prepare_here)
