"""Networks on a Ray cluster: actors that encode batches, and the engine that gives them their work."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError, RayError

from lookalike.encode.engine import Content, Engine, LazyEngine, Preparation, Prepared
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.process_tuning import MAX_PARALLEL_BATCHES
from lookalike.encode.profile import Profile
from lookalike.ingest.ray import cluster
from lookalike.ingest.ray.cluster import TRIES, Cluster, failed
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import EncoderMismatch, EncoderUnavailable, LookalikeError
from lookalike.schema.product import Vectors

_FOR_EVER = -1


class ActorInfo(NamedTuple):
    """What an actor tells of its network."""

    fingerprint: Fingerprint
    batch_size: int
    lanes: int
    preparation: Preparation


class EncodingActor:
    """The actor: a network in a process of its own, which Ray starts again, here or elsewhere, when it dies."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        # Raised by the first question: from here it would come out as a traceback's text.
        try:
            self._loaded: Engine | LookalikeError = load()
        except LookalikeError as error:
            self._loaded = error
        self._model = LazyEngine(self._engine)

    def about(self) -> ActorInfo:
        """Describe the network. Raises EncoderUnavailable."""
        engine = self._engine()
        # A bound method would bring the network along.
        prepare = getattr(engine.encoder, "prepare_image", engine.encoder.prepare)
        return ActorInfo(engine.fingerprint, engine.batch_size, engine.lanes, Preparation(engine.encoder.edge, prepare))

    def encode(self, *images: Prepared) -> Vectors:
        """Encode prepared images, which Ray has brought here."""
        return self._model.encode(images)

    def _engine(self) -> Engine:
        if isinstance(self._loaded, LookalikeError):
            raise self._loaded
        return self._loaded


class _Worker:
    """An actor, from when it answers until it dies."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.lost = False


class RayEngine:
    """The networks of a cluster, each with as many batches as it works on at once, and one more waiting there.

    A batch whose worker dies is given to another, and `tell` is told. Raises EncoderUnavailable, also when it is made.
    """

    def __init__(self, load: Callable[[], Engine], there: Cluster, tell: Callable[[str], object]) -> None:
        self._free: SimpleQueue[_Worker | LookalikeError] = SimpleQueue()
        """Workers, each as often as it can take a batch; or why there are none."""
        self._tell = tell
        self._lock = threading.Lock()
        self._first: Fingerprint | None = None
        kind = ray.remote(EncodingActor).options(
            # CPUs are for the tasks: actors that held them all would wait for images for ever.
            num_cpus=0,
            num_gpus=int(there.on_gpu),
            scheduling_strategy="SPREAD",
            max_concurrency=MAX_PARALLEL_BATCHES + 2,
            max_restarts=-1,
        )
        asked = [self._ask(kind.remote(load), TRIES - 1) for _ in range(there.networks)]
        wait(asked, return_when=FIRST_COMPLETED)
        about = _answer(next(future for future in asked if future.done()))
        self.fingerprint, self.batch_size = about.fingerprint, about.batch_size
        self.lanes = there.networks * (about.lanes + 1)
        self._preparation = ray.put(about.preparation)

    def prepare(self, content: Content, budget: PixelBudget, profile: Profile | None) -> Prepared:
        """Have one image decoded and prepared; each task has the whole budget. Raises BadImage."""
        return cluster.prepare(content, self._preparation, budget.max_pixels)

    def encode(self, images: Sequence[Prepared]) -> Vectors:
        """Have prepared images encoded."""
        for _ in range(TRIES):
            worker = self._take()
            try:
                vectors: Vectors = ray.get(worker.actor.encode.remote(*images))
            except RayActorError:
                self._lose(worker)
            except RayError as error:
                raise failed(error) from error
            else:
                self._free.put(worker)
                return vectors
        raise EncoderUnavailable(f"{TRIES} Ray actors died of {len(images)} images; try a smaller --batch-size")

    def _take(self) -> _Worker:
        while True:
            worker = self._free.get()
            if isinstance(worker, LookalikeError):
                # For all who ask.
                self._free.put(worker)
                raise worker
            if not worker.lost:
                return worker

    def _lose(self, worker: _Worker) -> None:
        """Give an actor nothing more to do until it answers again."""
        with self._lock:
            lost_before, worker.lost = worker.lost, True
        if not lost_before:
            self._tell("A Ray actor has died; others take over what it was at, and Ray starts it again.")
            # However long it takes: it may be minutes until a machine is known to be gone.
            self._ask(worker.actor, _FOR_EVER)

    def _ask(self, actor: Any, retries: int) -> Future[ActorInfo]:
        """Ask an actor, without waiting, what its network is; when it answers, it gets work."""
        asked: Future[ActorInfo] = actor.about.options(max_task_retries=retries).remote().future()
        asked.add_done_callback(partial(self._answered, _Worker(actor)))
        return asked

    def _answered(self, worker: _Worker, asked: Future[ActorInfo]) -> None:
        try:
            about = _answer(asked)
            self._require_same(about.fingerprint)
        except LookalikeError as error:
            self._free.put(error)
            return
        for _ in range(about.lanes + 1):
            self._free.put(worker)

    def _require_same(self, fingerprint: Fingerprint) -> None:
        with self._lock:
            self._first = self._first or fingerprint
        differences = self._first.differences(fingerprint)
        if differences:
            raise EncoderMismatch(
                f"{fingerprint.encoder!r} is not the same on all machines of the cluster ({'; '.join(differences)}); "
                "give all of them the same weights and the same lookalike"
            )


def _answer(asked: Future[ActorInfo]) -> ActorInfo:
    """What an actor has told. Raises EncoderUnavailable."""
    try:
        return asked.result()
    except RayError as error:
        raise failed(error) from error
