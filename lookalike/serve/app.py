"""The FastAPI application: its routers, error handlers and middleware, and what it closes at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from lookalike import __version__
from lookalike.serve.api import health_routes, product_routes, search_routes
from lookalike.serve.api.parameters import check_parameters
from lookalike.serve.api.problems import install_error_handlers
from lookalike.serve.api.schemas import BatchIn, Problem, ProductIn, SearchIn
from lookalike.serve.middleware import RequestGuard
from lookalike.serve.service import Service
from lookalike.serve.web import login, page, templating

API_ROUTERS = (search_routes.router, product_routes.router, health_routes.router)
"""In this order: /products/{id}/similar has to be tried before /products/{id}, which matches slashes too."""

PAGE_ROUTERS = (page.router, login.router, templating.router)
"""They do not refuse unknown parameters: links to the page carry those of newsletters and advertisements."""

_BODIES = (SearchIn, BatchIn, ProductIn)
_REF = "#/components/schemas/{model}"
_DESCRIPTION = "Finds similar products by image, words, product id, or a mix of them."


def create_app(service: Service) -> FastAPI:
    """Put a service behind HTTP. The service is closed when the application ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(app.state.page.close)
        await run_in_threadpool(service.close)

    app = FastAPIOffline(title="lookalike", description=_DESCRIPTION, version=__version__, lifespan=lifespan)
    app.openapi = lambda: _describe_api(app)  # type: ignore[method-assign]
    app.state.service = service
    app.state.readiness = health_routes.Readiness()
    app.state.page = page.Page(service)
    install_error_handlers(app)
    for router in API_ROUTERS:
        app.include_router(router, dependencies=[Depends(check_parameters)])
    for router in PAGE_ROUTERS:
        app.include_router(router)
    app.add_middleware(RequestGuard, settings=service.settings, metrics=service.metrics)
    return app


def _describe_api(app: FastAPI) -> dict[str, Any]:
    """Build the OpenAPI description, once. FastAPI does not know the bodies and problems that our code handles."""
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        models = [*((body, "validation") for body in _BODIES), (Problem, "serialization")]
        _, schemas = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
        components = description.setdefault("components", {})
        components["schemas"] = {**schemas["$defs"], **components.get("schemas", {})}
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        # The empty entry: a service for its own machine needs no key.
        description["security"] = [{"key": []}, {}]
        app.openapi_schema = description
    return app.openapi_schema
