"""What a running service consists of."""

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
from lookalike.serve.runtime.image_fetch import RequestFetcher, query_fetcher
from lookalike.serve.runtime.metrics import Metrics
from lookalike.serve.runtime.product_service import ProductService
from lookalike.serve.runtime.thumbnails import ThumbnailCache
from lookalike.serve.settings import Settings

_DESKS = 32
_IMAGE_DESKS = 4
_WRITE_DESKS = 2


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that routes work with; `close` ends them."""

    settings: Settings
    metrics: Metrics
    live: ActiveVersion
    desk: RequestExecutor
    image_desk: RequestExecutor
    """Thumbnails have threads of their own: a page full of them keeps no question waiting."""
    write_desk: RequestExecutor
    """So have writes, of which one is done at a time."""
    catalogue: ProductService
    images: ThumbnailCache
    fetcher: Fetcher | None

    @classmethod
    def start(cls, settings: Settings, open_store: Callable[[], Store], load: Callable[[str], Engine]) -> "Service":
        """Open the collection and load its encoder; raises what they raise."""
        metrics, budget = Metrics(), PixelBudget(settings.max_pixels)
        live = ActiveVersion(open_store, load, metrics, settings)
        metrics.watch("lookalike_queue_length", "Images and texts that wait for the encoder.", lambda: live.waiting)
        return cls(
            settings,
            metrics,
            live,
            RequestExecutor(_DESKS, settings.deadline),
            RequestExecutor(min(_IMAGE_DESKS, count_cores()), settings.deadline),
            RequestExecutor(_WRITE_DESKS, settings.deadline),
            ProductService(settings.uploads, budget),
            ThumbnailCache(budget, image_reader(allow_private=settings.allow_private_urls)),
            query_fetcher(settings.max_body) if settings.fetch_urls else None,
        )

    def fetches(self) -> RequestFetcher:
        """What one request gets images with that it names by URL."""
        return RequestFetcher(self.fetcher, MAX_IMAGES, self.settings.max_body)

    def warm_up(self) -> None:
        """Answer before the first guest comes: networks are slow at first."""
        self.live.prove()

    def close(self) -> None:
        """Finish what was begun, and let go of Milvus."""
        for desk in (self.desk, self.image_desk, self.write_desk):
            desk.close()
        if self.fetcher is not None:
            self.fetcher.close()
        self.live.close()


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return cast("Service", request.app.state.service)
