"""The page at /: a question in its address, its answer as cards, filters from the collection's own columns."""

from dataclasses import dataclass, replace
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import UploadFile

from lookalike.encode.encoder import TextEncoder
from lookalike.schema.errors import LookalikeError
from lookalike.schema.filters.ast import Filter
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store
from lookalike.search.browse import browse_products
from lookalike.search.facets import Facet, FacetValue, RangeFacet, ValueFacet
from lookalike.search.finder import SearchResult
from lookalike.search.query import MAX_REACH, Query
from lookalike.serve.api.problems import RequestRefused, get_request_id, make_problem, report_error
from lookalike.serve.api.schemas import Problem, image_path
from lookalike.serve.runtime.facet_cache import FacetCache
from lookalike.serve.service import Service, service_of
from lookalike.serve.web.page_query import PageQuery
from lookalike.serve.web.templating import page
from lookalike.serve.web.upload_cache import UploadCache

router = APIRouter(include_in_schema=False)

LIMIT = 24
"""Cards a page: two, three, four and six columns come out even."""

_MOST_FACETS = 20
_GONE = (
    "The image of this address is not here any more: they are kept in memory for a while only. "
    "Choose it again, and share the new address."
)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is asked with, as the page shows it."""

    name: str
    label: str
    image: str
    """Where to see it, empty for words."""

    without: str
    """The address of the same question without it."""


class Page:
    """What the page remembers between requests, and how it answers one."""

    def __init__(self, service: Service) -> None:
        self.uploaded = UploadCache(service.settings.max_pixels)
        self._counted = FacetCache()
        self._service = service

    def answer(self, asked: PageQuery) -> HTMLResponse:
        """Answer a question. Raises LookalikeError and Refused."""
        version = self._service.live.version
        found = self._found(asked) if asked.is_question else _some(version.store, asked.where)
        facets = _with_asked(self._counted.facets(version.store), asked)
        return self._page(asked, facets, self._parts(version.store, asked), found=found)

    def explain(self, asked: PageQuery, problem: Problem) -> HTMLResponse:
        """Say why there is no answer, without any work."""
        facets = _with_asked(self._counted.known(self._service.live.version.store), asked)
        return self._page(asked, facets, self._parts(None, asked), problem=problem)

    def close(self) -> None:
        """Leave what is being counted."""
        self._counted.close()

    def _found(self, asked: PageQuery) -> SearchResult:
        query = Query(
            image=self._image(asked.image) if asked.image else None,
            text=asked.text or None,
            product_id=asked.product or None,
            where=asked.where,
            limit=LIMIT,
            offset=asked.offset,
        )
        return self._service.live.finder.find(query)

    def _image(self, name: str) -> bytes:
        content = self.uploaded.find(name)
        if content is None:
            raise RequestRefused(410, _GONE)
        return content

    def _parts(self, store: Store | None, asked: PageQuery) -> list[Part]:
        """What is asked with; the image of a product is looked up in the store, where there is one."""
        parts = []
        if asked.image and self.uploaded.find(asked.image) is not None:
            parts.append(Part("image", "your image", _uploaded_url(asked.image), asked.without("image").address))
        if asked.product:
            image = _image_of(store, asked.product) if store is not None else ""
            parts.append(Part("product", asked.product, image, asked.without("product").address))
        if asked.text:
            parts.append(Part("text", f"“{asked.text}”", "", asked.without("text").address))
        return parts

    def _page(self, asked: PageQuery, facets: list[Facet], parts: list[Part], **values: Any) -> HTMLResponse:
        told: Problem | None = values.get("problem")
        found: SearchResult | None = values.get("found")
        more = asked.further(found.next_offset or 0).address if found is not None and _goes_on(found) else ""
        return page(
            "page.html",
            told.status if told else 200,
            asked=asked,
            facets=facets,
            parts=parts,
            problem=told,
            found=found,
            more=more,
            words=isinstance(self._service.live.version.encoder, TextEncoder) or bool(asked.text),
            collection=self._service.live.version.store.name,
            keys=self._service.settings.keys.required,
            max_body=self._service.settings.max_body,
            image_path=image_path,
        )


@router.get("/")
async def show(request: Request) -> Response:
    """Answer the question of an address."""
    asked = PageQuery()
    try:
        asked = PageQuery.read(request.query_params.multi_items())
        return await service_of(request).executor.run(request, lambda: page_of(request).answer(asked))
    except (LookalikeError, RequestRefused) as error:
        return page_of(request).explain(asked, _told(request, error))


@router.post("/")
async def ask(request: Request) -> Response:
    """Take in a question with its image, and lead to the address that answers it."""
    async with request.form(max_files=1, max_fields=1_000) as form:
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        upload = form.get("upload")
        content = await upload.read() if isinstance(upload, UploadFile) else b""
    uploaded, asked = page_of(request).uploaded, PageQuery()
    try:
        asked = PageQuery.read(fields)
        if content:
            name = await service_of(request).executor.run(request, lambda: uploaded.keep(content))
            asked = replace(asked, image=name)
    except LookalikeError as error:
        response = page_of(request).explain(asked, _told(request, error))
        response.headers["HX-Push-Url"] = "false"  # to htmx: this has no address
        return response
    return RedirectResponse(asked.further(0).address, 303)


@router.get("/uploaded/{name}")
async def uploaded(request: Request, name: str) -> Response:
    """Show an image that was asked with."""
    content = page_of(request).uploaded.find(name)
    if content is None:
        raise RequestRefused(404, _GONE)
    headers = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(content, media_type="image/jpeg", headers=headers)


def page_of(request: Request) -> Page:
    """The page of the application that a request came to."""
    return cast("Page", request.app.state.page)


def _told(request: Request, error: LookalikeError | RequestRefused) -> Problem:
    if isinstance(error, RequestRefused):
        return make_problem(error.status, error.detail, get_request_id(request))
    return report_error(request, error)


def _some(store: Store, where: Filter) -> SearchResult:
    return SearchResult(browse_products(store, where, LIMIT), 0.0)


def _goes_on(found: SearchResult) -> bool:
    return found.next_offset is not None and found.next_offset + LIMIT <= MAX_REACH


def _image_of(store: Store, product_id: str) -> str:
    rows: list[Any] = store.fetch(where=column_in("product_id", [product_id]), fields=[], limit=1)
    return image_path(rows[0]["image_id"]) if rows else ""


def _uploaded_url(name: str) -> str:
    return f"/uploaded/{name}"


def _with_asked(facets: list[Facet], asked: PageQuery) -> list[Facet]:
    """Add what is asked for but was not counted, so that it can be seen and undone."""
    left = {column for column, _ in asked.choices}
    bounded = {column for column, _, _ in asked.bounds}
    shown: list[Facet] = []
    for facet in facets[:_MOST_FACETS]:
        if isinstance(facet, ValueFacet):
            known = {choice.value for choice in facet.choices}
            new = tuple(FacetValue(value) for value in asked.chosen(facet.column) if value not in known)
            shown.append(ValueFacet(facet.column, (*facet.choices, *new)))
            left.discard(facet.column)
        else:
            shown.append(facet)
            bounded.discard(facet.column)
    shown.extend(ValueFacet(column, tuple(map(FacetValue, asked.chosen(column)))) for column in sorted(left))
    shown.extend(RangeFacet(column) for column in sorted(bounded))
    return shown
