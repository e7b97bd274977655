"""The application: routes, problems, the gate before them, and what starts and ends with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from lookalike.serve.api import health_routes as health
from lookalike.serve.api import problems
from lookalike.serve.api import product_routes as products
from lookalike.serve.api import search_routes as questions
from lookalike.serve.api.schemas import BatchIn, Problem, ProductIn, SearchIn
from lookalike.serve.middleware import RequestGuard
from lookalike.serve.service import Service
from lookalike.serve.web import login, page
from lookalike.serve.web import templating as html

_REF = "#/components/schemas/{model}"
_DESCRIPTION = "Finds similar products by image, words, product id, or a mix of them."


def create_app(service: Service, version: str = "0") -> FastAPI:
    """Put a service behind HTTP; it is closed when the application ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(app.state.page.close)
        await run_in_threadpool(service.close)

    app = FastAPIOffline(title="lookalike", description=_DESCRIPTION, version=version, lifespan=lifespan)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.state.service = service
    app.state.readiness = health.Readiness()
    app.state.page = page.Page(service)
    problems.install(app)
    for router in (questions.router, products.router, health.router, page.router, login.router, html.router):
        app.include_router(router)
    app.add_middleware(RequestGuard, settings=service.settings, metrics=service.metrics)
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the routes; bodies and problems, which we read and write ourselves, among them."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        bodies = [(kind, "validation") for kind in (SearchIn, BatchIn, ProductIn)]
        _, extra = models_json_schema([*bodies, (Problem, "serialization")], ref_template=_REF)  # type: ignore[list-item]
        components = found.setdefault("components", {})
        components["schemas"] = {**extra["$defs"], **components.get("schemas", {})}
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        # None is needed where the service is for its own machine only.
        found["security"] = [{"key": []}, {}]
        app.openapi_schema = found
    return app.openapi_schema
