"""Routes that search: /search, /search/batch, /products/{id}/similar."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi import Query as QueryParameter

from lookalike.schema.errors import BadFilter, BadQuery
from lookalike.schema.filters.parser import parse_filter
from lookalike.search.query import MAX_LIMIT, MAX_PARTS, MAX_REACH, Part, Query
from lookalike.serve.api.problems import GUARDED, STORE, describe_and_log, document_problems, get_request_id
from lookalike.serve.api.product_path import PRODUCT_PATH
from lookalike.serve.api.redaction import reject_location_filters
from lookalike.serve.api.request_body import RequestBody, describe_body, describe_form, read_body
from lookalike.serve.api.schemas import MAX_ID, BatchIn, BatchOut, FetchImage, SearchIn, SearchOut
from lookalike.serve.service import Service, get_service

router = APIRouter(tags=["search"])

_JSON_FIELD = "query"
_FORM = describe_form(_JSON_FIELD, MAX_PARTS, "Images to be like.")


@router.post(
    "/search",
    responses=document_problems(*GUARDED, *STORE, 400, 404, 408, 415),
    openapi_extra=describe_body(SearchIn, _FORM),
)
async def search(request: Request) -> SearchOut:
    """Find similar products: by images, words, products, stored images, vectors, or a weighted mix of them.

    The query becomes one unit vector: the weighted mean of `like` minus half the weighted mean of `unlike`. The
    response has distinct products: `limit` of them, or all that match.
    """
    body = await read_body(request, _JSON_FIELD, MAX_PARTS)
    service = get_service(request)
    return await service.executor.run(request, lambda: _search(service, body))


@router.post(
    "/search/batch",
    responses=document_problems(*GUARDED, *STORE, 408, 415),
    openapi_extra=describe_body(BatchIn),
)
async def search_batch(request: Request) -> BatchOut:
    """Run several queries. One that fails gets a problem in place of its result."""
    body = await read_body(request)
    service, request_id = get_service(request), get_request_id(request)
    return await service.executor.run(request, lambda: _search_batch(service, body, request_id))


@router.get(f"{PRODUCT_PATH}/similar", responses=document_problems(*GUARDED, *STORE, 404))
async def similar(
    request: Request,
    product_id: Annotated[str, Path(min_length=1, max_length=MAX_ID)],
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, QueryParameter(ge=0, lt=MAX_REACH)] = 0,
    where: Annotated[
        list[str] | None,
        QueryParameter(
            max_length=100, description="A condition such as `price < 50`, or a filter in JSON; all must match."
        ),
    ] = None,
) -> SearchOut:
    """Find the products most similar to one of the collection, which is left out."""
    service = get_service(request)

    def find_similar() -> SearchOut:
        filters = reject_location_filters(parse_filter(where or ()))
        query = Query(product_id=product_id, where=filters, limit=limit, offset=offset)
        return SearchOut.from_result(service.live.finder.find(query))

    return await service.executor.run(request, find_similar)


def _search(service: Service, body: RequestBody) -> SearchOut:
    images = tuple(Part(image=content) for content in body.images)
    query = body.parse(SearchIn).to_query(service.make_fetcher().fetch, images)
    return SearchOut.from_result(service.live.finder.find(query))


def _search_batch(service: Service, body: RequestBody, request_id: str) -> BatchOut:
    batch = body.parse(BatchIn)
    started = time.perf_counter()
    fetch = service.make_fetcher().fetch
    queries = [_parse_query(search, fetch) for search in batch.queries]
    found = iter(service.live.finder.find_many([query for query in queries if isinstance(query, Query)]))
    results = [next(found) if isinstance(query, Query) else query for query in queries]
    return BatchOut(
        results=[
            describe_and_log(result, request_id) if isinstance(result, Exception) else SearchOut.from_result(result)
            for result in results
        ],
        took_ms=round((time.perf_counter() - started) * 1_000, 3),
    )


def _parse_query(search: SearchIn, fetch: FetchImage) -> Query | BadQuery | BadFilter:
    try:
        return search.to_query(fetch)
    except (BadQuery, BadFilter) as error:
        return error
