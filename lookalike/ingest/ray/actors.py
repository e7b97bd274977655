"""Encoders on a Ray cluster: actors that encode batches, and the engine that sends them batches."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError

from lookalike.encode.encoder import prepare_function
from lookalike.encode.engine import Content, Engine, LazyEngine, Preparation, Prepared
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES
from lookalike.encode.stage_timer import NO_TIMER, StageTimer
from lookalike.ingest.ray.cluster import ATTEMPTS, Cluster, map_error, prepare
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderMismatch, EncoderUnavailable, LookalikeError
from lookalike.schema.product import Vectors

_WITHOUT_LIMIT = -1
_OTHER_CALLS = 2
"""Calls of an actor besides batches: `describe`, and one to spare."""


class ActorInfo(NamedTuple):
    """What an actor says about its encoder."""

    fingerprint: Fingerprint
    batch_size: int
    parallel_batches: int
    preparation: Preparation


class EncodingActor:
    """The actor: an encoder in a process of its own. Ray starts it again, on this machine or another, when it dies."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        # Raised by the first call: an error of a constructor arrives as the text of a traceback.
        try:
            self._loaded: Engine | LookalikeError = load()
        except LookalikeError as error:
            self._loaded = error
        self._engine = LazyEngine(self._get_engine)

    def describe(self) -> ActorInfo:
        """Describe the encoder. Raises EncoderUnavailable."""
        engine = self._get_engine()
        encoder = engine.encoder
        # Pickling a bound method of the encoder would send its weights along.
        preparation = Preparation(encoder.edge, prepare_function(encoder))
        return ActorInfo(engine.fingerprint, engine.batch_size, engine.parallel_batches, preparation)

    def encode(self, *images: Prepared) -> Vectors:
        """Encode prepared images, which Ray has brought to this machine."""
        return self._engine.encode(images)

    def _get_engine(self) -> Engine:
        if isinstance(self._loaded, LookalikeError):
            raise self._loaded
        return self._loaded


class _Worker:
    """An actor, from its first response until it dies."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.is_lost = False


class RayEngine:
    """The encoders of a cluster; each gets as many batches as it encodes at once, and one more that waits there.

    A batch whose worker dies is given to another, and `report` is called with a message. Raises EncoderUnavailable,
    also when it is made.
    """

    def __init__(self, load: Callable[[], Engine], cluster: Cluster, report: Callable[[str], object]) -> None:
        self._free: SimpleQueue[_Worker | LookalikeError] = SimpleQueue()
        """Each worker once for every batch that it can take; or the error because of which there are none."""
        self._report = report
        self._lock = threading.Lock()
        self._first_fingerprint: Fingerprint | None = None
        kind = ray.remote(EncodingActor).options(
            # CPUs are for the tasks: if actors held all of them, no image would ever be read.
            num_cpus=0,
            num_gpus=int(cluster.on_gpu),
            scheduling_strategy="SPREAD",
            max_concurrency=MAX_PARALLEL_BATCHES + _OTHER_CALLS,
            max_restarts=-1,
        )
        starting = [self._start(kind.remote(load), ATTEMPTS - 1) for _ in range(cluster.actors)]
        wait(starting, return_when=FIRST_COMPLETED)
        info = _result(next(future for future in starting if future.done()))
        self.fingerprint, self.batch_size = info.fingerprint, info.batch_size
        self.parallel_batches = cluster.actors * (info.parallel_batches + 1)
        self._preparation = ray.put(info.preparation)

    def prepare(self, content: Content, budget: PixelBudget, timer: StageTimer = NO_TIMER) -> Prepared:
        """Decode and prepare one image in a task; each task has the whole budget. Raises BadImage."""
        return prepare(content, self._preparation, budget.max_pixels)

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Encode prepared images in an actor."""
        for _ in range(ATTEMPTS):
            worker = self._take_worker()
            try:
                vectors: Vectors = ray.get(worker.actor.encode.remote(*images))
            except RayActorError:
                self._replace(worker)
            except RayError as error:
                raise map_error(error) from error
            else:
                self._free.put(worker)
                return vectors
        raise EncoderUnavailable(
            f"{ATTEMPTS} Ray actors died while encoding {len(images)} images; try a smaller --batch-size"
        )

    def _take_worker(self) -> _Worker:
        while True:
            worker = self._free.get()
            if isinstance(worker, LookalikeError):
                # For the other threads that wait.
                self._free.put(worker)
                raise worker
            if not worker.is_lost:
                return worker

    def _replace(self, worker: _Worker) -> None:
        """Send a dead actor no more batches until it responds again."""
        with self._lock:
            was_lost, worker.is_lost = worker.is_lost, True
        if not was_lost:
            self._report("A Ray actor has died. Others take over its batches, and Ray starts it again.")
            # It may take Ray minutes to find out that a machine is gone.
            self._start(worker.actor, _WITHOUT_LIMIT)

    def _start(self, actor: Any, retries: int) -> Future[ActorInfo]:
        """Have an actor describe its encoder, without waiting for it; when it has, it gets batches."""
        future: Future[ActorInfo] = actor.describe.options(max_task_retries=retries).remote().future()
        future.add_done_callback(partial(self._add_worker, _Worker(actor)))
        return future

    def _add_worker(self, worker: _Worker, described: Future[ActorInfo]) -> None:
        try:
            info = _result(described)
            self._require_same(info.fingerprint)
        except LookalikeError as error:
            self._free.put(error)
            return
        for _ in range(info.parallel_batches + 1):
            self._free.put(worker)

    def _require_same(self, fingerprint: Fingerprint) -> None:
        with self._lock:
            self._first_fingerprint = self._first_fingerprint or fingerprint
        differences = self._first_fingerprint.list_differences(fingerprint)
        if differences:
            raise EncoderMismatch(
                f"{fingerprint.encoder!r} is not the same on all machines of the cluster ({'; '.join(differences)}); "
                "give all of them the same weights and the same lookalike"
            )


def _result(described: Future[ActorInfo]) -> ActorInfo:
    """Return what an actor has said. Raises EncoderUnavailable."""
    try:
        return described.result()
    except RayError as error:
        raise map_error(error) from error
