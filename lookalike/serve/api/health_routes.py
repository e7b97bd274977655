"""Routes for those who run the service: /health, /ready, /metrics."""

import asyncio
import time
from typing import Literal

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from lookalike.schema.errors import LookalikeError
from lookalike.serve.api.problems import GUARDED, RequestRefused, document_problems
from lookalike.serve.runtime.metrics import MEDIA_TYPE
from lookalike.serve.service import Service, get_service

router = APIRouter(tags=["health"])

_CACHE_SECONDS = 1.0
"""How long a result of /ready is reused: it needs no key, and must not keep the encoder busy."""

_log = structlog.get_logger("lookalike")


class State(BaseModel):
    """The state of the service."""

    status: Literal["alive", "ready"]


class Readiness:
    """Checks whether the service can search; one check at a time, and its result is shared."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._valid_until = 0.0
        self._is_ready = False

    async def check(self, service: Service) -> bool:
        """Embed an image and search with it, unless that was done within the last second."""
        async with self._lock:
            if time.monotonic() >= self._valid_until:
                self._is_ready = await self._run_check(service)
                self._valid_until = time.monotonic() + _CACHE_SECONDS
            return self._is_ready

    async def _run_check(self, service: Service) -> bool:
        try:
            await service.executor.run_shared(service.live.run_self_test)
        except LookalikeError as error:
            _log.warning("not ready", error=type(error).__name__, reason=str(error))
            return False
        return True


@router.get("/health", responses=document_problems(422, 500))
async def health() -> State:
    """Whether the process is alive. Neither Milvus nor the encoder is used."""
    return State(status="alive")


@router.get("/ready", responses=document_problems(422, 500, 503))
async def ready(request: Request) -> State:
    """Whether the service can search: it embeds an image and searches with it."""
    readiness: Readiness = request.app.state.readiness
    if not await readiness.check(get_service(request)):
        raise RequestRefused(503, "the service cannot search at present; try again in a moment")
    return State(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **document_problems(*GUARDED)},
)
async def metrics(request: Request) -> Response:
    """Requests, stages, batches, queues and errors, in the Prometheus text format."""
    return Response(get_service(request).metrics.to_text(), media_type=MEDIA_TYPE)
