"""The parts of a running service."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from lookalike.encode.engine import Engine
from lookalike.encode.fetch.fetcher import Fetcher
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.encode.process_tuning import count_cores
from lookalike.ingest.sources.files import image_reader
from lookalike.schema.milvus.store import Store
from lookalike.serve.api.schemas import MAX_IMAGES
from lookalike.serve.runtime.active_version import ActiveVersion
from lookalike.serve.runtime.executor import RequestExecutor
from lookalike.serve.runtime.image_fetch import RequestFetcher, make_query_fetcher
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.runtime.product_service import ProductService
from lookalike.serve.runtime.thumbnails import ThumbnailCache
from lookalike.serve.settings import Settings

_REQUEST_THREADS = 32
_MAX_IMAGE_THREADS = 4
_WRITE_THREADS = 2


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with. `close` ends all of it."""

    settings: Settings
    metrics: Metrics
    live: ActiveVersion
    executor: RequestExecutor
    image_executor: RequestExecutor
    """Threads for stored images alone, so that a page full of thumbnails does not delay searches."""
    write_executor: RequestExecutor
    """Threads for writes alone: only one write runs at a time, and the others wait for it."""
    products: ProductService
    thumbnails: ThumbnailCache
    fetcher: Fetcher | None
    """Fetches the `image_url` of requests; None where the service does not allow it."""

    @classmethod
    def start(cls, settings: Settings, open_store: Callable[[], Store], load: Callable[[str], Engine]) -> "Service":
        """Open the collection and load its encoder by name. Raises what the two callables raise."""
        metrics, budget = Metrics(), PixelBudget(settings.max_pixels)
        live = ActiveVersion(open_store, load, metrics, settings)
        metrics.add_gauge(
            "lookalike_queue_length", "Images and texts that wait for the encoder.", lambda: live.queue_length
        )
        return cls(
            settings=settings,
            metrics=metrics,
            live=live,
            executor=RequestExecutor(_REQUEST_THREADS, settings.deadline),
            image_executor=RequestExecutor(min(_MAX_IMAGE_THREADS, count_cores()), settings.deadline),
            write_executor=RequestExecutor(_WRITE_THREADS, settings.deadline),
            products=ProductService(settings.uploads, budget),
            thumbnails=ThumbnailCache(budget, image_reader(allow_private=settings.allow_private_urls)),
            fetcher=make_query_fetcher(settings.max_body) if settings.fetch_urls else None,
        )

    def make_fetcher(self) -> RequestFetcher:
        """Make a fetcher for the images that one request names by URL; it counts them."""
        return RequestFetcher(self.fetcher, MAX_IMAGES, self.settings.max_body)

    def warm_up(self) -> None:
        """Encode an image and search with it before the first request: the first forward pass is slow."""
        self.live.run_self_test()

    def close(self) -> None:
        """Finish the work that has begun, then close the connections to Milvus."""
        for executor in (self.executor, self.image_executor, self.write_executor):
            executor.close()
        if self.fetcher is not None:
            self.fetcher.close()
        self.live.close()


def get_service(request: Request) -> Service:
    """Return the service that a request was sent to."""
    return cast("Service", request.app.state.service)
