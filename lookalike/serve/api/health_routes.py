"""Routes for those who run the service: /health, /ready, /metrics."""

import asyncio
import time
from typing import Literal

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from lookalike.schema.errors import LookalikeError
from lookalike.serve.api.problems import RequestRefused, told
from lookalike.serve.runtime.metrics import MEDIA_TYPE
from lookalike.serve.service import Service, service_of

router = APIRouter(tags=["health"])

_KEPT_SECONDS = 1.0
"""For how long an answer of /ready holds: who asks without a key must not keep the encoder busy."""

_log = structlog.get_logger("lookalike")


class State(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


class Readiness:
    """Proves that the service answers, once at a time."""

    def __init__(self) -> None:
        self._proving = asyncio.Lock()
        self._until = 0.0
        self._ready = False

    async def prove(self, service: Service) -> bool:
        """Embed an image and search with it, unless that was done a moment ago."""
        async with self._proving:
            if time.monotonic() >= self._until:
                self._ready = await self._proved(service)
                self._until = time.monotonic() + _KEPT_SECONDS
            return self._ready

    async def _proved(self, service: Service) -> bool:
        try:
            await service.desk.run_for_many(service.live.prove)
        except LookalikeError as error:
            _log.warning("not ready", error=type(error).__name__, reason=str(error))
            return False
        return True


@router.get("/health")
async def health() -> State:
    """Tell that the process is alive; nothing is asked of Milvus or the encoder."""
    return State(status="alive")


@router.get("/ready", responses=told(503))
async def ready(request: Request) -> State:
    """Tell whether questions are answered: an image is embedded and searched with, truly."""
    readiness: Readiness = request.app.state.readiness
    if not await readiness.prove(service_of(request)):
        raise RequestRefused(503, "no question can be answered just now; the service's log says why")
    return State(status="ready")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Tell requests, stages, batches, queues and errors to Prometheus."""
    return Response(service_of(request).metrics.text(), media_type=MEDIA_TYPE)
