"""The page at /: its URL holds the query; it shows the results as cards, and filters from the collection's columns."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import UploadFile

from lookalike.encode.encoder import TextEncoder
from lookalike.schema.errors import BadQuery, LookalikeError
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store
from lookalike.search.explore.browse import browse_products
from lookalike.search.explore.facets import Facet, FacetValue, RangeFacet, ValueFacet
from lookalike.search.finder import SearchResult
from lookalike.search.query import MAX_REACH, Query
from lookalike.serve.api.parameters import describe_unknown
from lookalike.serve.api.problems import RequestRefused, get_request_id, make_problem, report_error
from lookalike.serve.api.schemas import Problem, image_path
from lookalike.serve.runtime.facet_cache import FacetCache
from lookalike.serve.service import Service, get_service
from lookalike.serve.web.page_query import PageQuery, QueryPart
from lookalike.serve.web.templating import render_page
from lookalike.serve.web.upload_cache import UploadCache

router = APIRouter(include_in_schema=False)

LIMIT = 24
"""Cards per page: fills rows of two, three, four and six columns."""

_MAX_FACETS = 20
_UPLOAD = "upload"
_FORM_FIELDS = ("image", "text", "product")
_EXPIRED = (
    "This photo has expired, because uploads are kept in memory for a short time only. "
    "Choose it again, and share the new link."
)


@dataclass(frozen=True, slots=True)
class ShownPart:
    """One part of the query, as the page shows it."""

    name: QueryPart
    label: str
    image_url: str
    """Empty for text, and for a product that is not looked up."""

    url_without: str
    """The URL of the same query without this part."""


class Page:
    """Renders the page; holds the uploaded images and the filters between requests."""

    def __init__(self, service: Service) -> None:
        self.uploads = UploadCache(service.settings.max_pixels)
        self._facet_cache = FacetCache()
        self._service = service

    def render_results(self, query: PageQuery) -> HTMLResponse:
        """Run a query and render its results. Raises LookalikeError, RequestRefused."""
        store = self._service.live.version.store
        result = self._search(query) if query.has_parts else self._browse(query)
        facets = self._facet_cache.get_facets(store)
        return self._render(query, facets, self._shown_parts(query, store), result=result)

    def render_problem(self, query: PageQuery, problem: Problem) -> HTMLResponse:
        """Render why a query has no results. Calls neither the encoder nor Milvus."""
        facets = self._facet_cache.get_cached(self._service.live.version.store)
        return self._render(query, facets, self._shown_parts(query, None), problem=problem)

    def close(self) -> None:
        """Stop counting filters."""
        self._facet_cache.close()

    def _search(self, query: PageQuery) -> SearchResult:
        return self._service.live.finder.find(
            Query(
                image=self._read_upload(query.image) if query.image else None,
                text=query.text or None,
                product_id=query.product or None,
                where=query.where,
                limit=LIMIT,
                offset=query.offset,
            )
        )

    def _browse(self, query: PageQuery) -> SearchResult:
        finder = self._service.live.version.finder
        finder.check_filter(query.where)
        return SearchResult(browse_products(finder.store, query.where, LIMIT), 0.0)

    def _read_upload(self, name: str) -> bytes:
        content = self.uploads.get(name)
        if content is None:
            raise RequestRefused(410, _EXPIRED)
        return content

    def _shown_parts(self, query: PageQuery, store: Store | None) -> list[ShownPart]:
        """List the parts of the query. Without a store, a product is shown without its image."""
        parts = []
        if query.image and self.uploads.get(query.image) is not None:
            parts.append(ShownPart("image", "your photo", f"/uploaded/{query.image}", query.without("image").url))
        if query.product:
            image_url = _product_image_url(store, query.product) if store is not None else ""
            parts.append(ShownPart("product", query.product, image_url, query.without("product").url))
        if query.text:
            parts.append(ShownPart("text", f"“{query.text}”", "", query.without("text").url))
        return parts

    def _render(
        self,
        query: PageQuery,
        facets: Sequence[Facet],
        parts: list[ShownPart],
        *,
        result: SearchResult | None = None,
        problem: Problem | None = None,
    ) -> HTMLResponse:
        version, settings = self._service.live.version, self._service.settings
        return render_page(
            "page.html",
            problem.status if problem else 200,
            query=query,
            facets=_add_chosen(facets[:_MAX_FACETS], query),
            parts=parts,
            problem=problem,
            result=result,
            next_url=_next_url(query, result),
            accepts_text=isinstance(version.encoder, TextEncoder) or bool(query.text),
            collection=version.store.name,
            needs_key=settings.keys.required,
            max_body=settings.max_body,
            image_path=image_path,
        )


@router.get("/")
async def show_page(request: Request) -> Response:
    """Show the results of the query in the URL."""
    query = PageQuery()
    try:
        query = PageQuery.parse(request.query_params.multi_items())
        return await get_service(request).executor.run(request, lambda: page_of(request).render_results(query))
    except (LookalikeError, RequestRefused) as error:
        return page_of(request).render_problem(query, _problem_of(request, error))


@router.post("/")
async def submit_query(request: Request) -> Response:
    """Take the form with its uploaded image, and redirect to the URL of the query."""
    async with request.form(max_files=1, max_fields=1_000) as form:
        fields = [(name, value if isinstance(value, str) else "") for name, value in form.multi_items()]
        upload = form.get(_UPLOAD)
        content = await upload.read() if isinstance(upload, UploadFile) else b""
    uploads, query = page_of(request).uploads, PageQuery()
    try:
        query = PageQuery.parse((name, value) for name, value in fields if name != _UPLOAD or value)
        if query.unknown:
            raise BadQuery(describe_unknown("form field", query.unknown[0], (*_FORM_FIELDS, _UPLOAD)))
        if content:
            name = await get_service(request).executor.run(request, lambda: uploads.add(content))
            query = replace(query, image=name)
    except LookalikeError as error:
        response = page_of(request).render_problem(query, _problem_of(request, error))
        response.headers["HX-Push-Url"] = "false"  # For htmx: this response has no URL of its own.
        return response
    return RedirectResponse(query.at_offset(0).url, 303)


@router.get("/uploaded/{name}")
async def show_upload(request: Request, name: str) -> Response:
    """Send an uploaded image."""
    content = page_of(request).uploads.get(name)
    if content is None:
        raise RequestRefused(404, _EXPIRED)
    headers = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(content, media_type="image/jpeg", headers=headers)


def page_of(request: Request) -> Page:
    """Return the page of the application that serves a request."""
    return cast("Page", request.app.state.page)


def _problem_of(request: Request, error: LookalikeError | RequestRefused) -> Problem:
    if isinstance(error, RequestRefused):
        return make_problem(error.status, error.detail, get_request_id(request))
    return report_error(request, error)


def _next_url(query: PageQuery, result: SearchResult | None) -> str:
    """Return the URL of the next page, empty after the last one."""
    if result is None or result.next_offset is None or result.next_offset + LIMIT > MAX_REACH:
        return ""
    return query.at_offset(result.next_offset).url


def _product_image_url(store: Store, product_id: str) -> str:
    rows: list[Any] = store.fetch(where=column_in("product_id", [product_id]), fields=[], limit=1)
    return image_path(rows[0]["image_id"]) if rows else ""


def _add_chosen(facets: Sequence[Facet], query: PageQuery) -> list[Facet]:
    """Add the filters in use that were not counted, so that the visitor can see and undo them."""
    new_choices = {column for column, _ in query.choices}
    new_bounds = {column for column, _, _ in query.bounds}
    shown: list[Facet] = []
    for facet in facets:
        if isinstance(facet, ValueFacet):
            shown.append(_add_chosen_values(facet, query))
            new_choices.discard(facet.column)
        else:
            shown.append(facet)
            new_bounds.discard(facet.column)
    shown.extend(_add_chosen_values(ValueFacet(column, ()), query) for column in sorted(new_choices))
    shown.extend(RangeFacet(column) for column in sorted(new_bounds))
    return shown


def _add_chosen_values(facet: ValueFacet, query: PageQuery) -> ValueFacet:
    listed = {choice.value for choice in facet.choices}
    new = [FacetValue(value) for value in query.chosen_values(facet.column) if value not in listed]
    return ValueFacet(facet.column, (*facet.choices, *new))
