"""A Ray cluster: join it, or start Ray on this machine; its tasks read and decode images wherever there is a CPU.

Bytes and pixels stay with the workers: this process only gets references to them. These are tasks of Ray's core, since
Ray Data offers no step between reading and decoding that decides for each image whether to go on.
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

ATTEMPTS = 4
"""How many workers may die of the same work."""

_CONNECT_SECONDS = 10.0


class Cluster(NamedTuple):
    """What a cluster has: CPUs to read and decode on, and how many actors encode, each on a GPU or on CPUs."""

    cpus: int
    actors: int
    on_gpu: bool


def connect(device: str) -> Cluster:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine, unless that was done.

    There is an actor for each GPU, or for each machine when there is no GPU. Raises EncoderUnavailable.
    """
    if not ray.is_initialized():
        _join(os.environ.get("RAY_ADDRESS") or "local")
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if not cpus:
        raise EncoderUnavailable("the Ray cluster has no CPU to read and decode images on; start it with --num-cpus")
    if gpus and device != "cpu":
        return Cluster(cpus, gpus, on_gpu=True)
    return Cluster(cpus, sum(node["Alive"] for node in ray.nodes()), on_gpu=False)


def read(image: str, known: FileState | None, *, allow_private: bool) -> tuple[Content, FileState] | None:
    """Read an image in a task; None when it is still the known file. Its bytes stay there. Raises BadImage."""
    outcome, content = _read.remote(image, known, allow_private)
    file: FileState | None = _get(outcome)
    return None if file is None else (content, file)


def prepare(content: Content, preparation: Any, max_pixels: int) -> Prepared:
    """Prepare an image in a task, near its bytes if there is room; `preparation` is a reference. Raises BadImage."""
    outcome, pixels = _prepare.remote(content, preparation, max_pixels)
    _get(outcome)
    return pixels


def map_error(error: RayError) -> LookalikeError:
    """Return an error of Ray as a LookalikeError: the one that a worker has raised, or EncoderUnavailable."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, LookalikeError):
        return error.cause
    reason = str(error).strip().splitlines()[-1] or type(error).__name__
    return EncoderUnavailable(f"Ray has failed ({reason}); what is counted as stored is kept, run it again")


def _join(address: str) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(address)
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise EncoderUnavailable(
            f"there is no Ray at RAY_ADDRESS {address!r} ({error}); start it there with 'ray start --head', or unset "
            "RAY_ADDRESS to start Ray on this machine"
        ) from error
    finally:
        # Ray replaces our handler, which stops a run between two batches.
        signal.signal(signal.SIGTERM, handler)


def _check_reachable(address: str) -> None:
    """Fail within seconds; Ray would retry for minutes. Raises OSError, ValueError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _get(reference: Any) -> Any:
    """Wait for the outcome of a task. Raises BadImage when that is what it is."""
    try:
        outcome = ray.get(reference)
    except WorkerCrashedError as error:
        raise BadImage(f"{ATTEMPTS} Ray workers died while decoding it") from error
    except RayError as error:
        raise map_error(error) from error
    if isinstance(outcome, BadImage):
        raise outcome
    return outcome


# Tasks return a BadImage as a value: if they raised it, it would be in both of their references, and nothing reads the
# second one.


def _read_image(image: str, known: FileState | None, allow_private: bool) -> tuple[FileState | BadImage | None, bytes]:
    try:
        changed = files.image_reader(allow_private=allow_private).read_changed(image, known)
    except BadImage as error:
        return error, b""
    content, file = changed or (b"", None)
    return file, content


def _prepare_image(content: bytes, preparation: Preparation, max_pixels: int) -> tuple[BadImage | None, Any]:
    try:
        return None, preparation(content, PixelBudget(max_pixels))
    except BadImage as error:
        return error, None


_read = ray.remote(num_returns=2, max_retries=ATTEMPTS - 1)(_read_image)
_prepare = ray.remote(num_returns=2, max_retries=ATTEMPTS - 1)(_prepare_image)
