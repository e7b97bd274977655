"""Routes that answer: /search, /search/batch, /products/{id}/similar."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from lookalike.schema.errors import BadFilter, BadImage, BadQuery, UnknownProduct
from lookalike.schema.filters.parser import parse_filter
from lookalike.search.query import MAX_LIMIT, MAX_PARTS, MAX_REACH, Part
from lookalike.search.query import Query as Question
from lookalike.serve.api.problems import problem_of, request_id, told
from lookalike.serve.api.redaction import reject_location_filters
from lookalike.serve.api.request_body import RequestBody, describe_body, read_body
from lookalike.serve.api.schemas import MAX_ID, BatchIn, BatchOut, Fetch, SearchIn, SearchOut
from lookalike.serve.service import Service, service_of

router = APIRouter(tags=["search"])

_FILES = {
    "image": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "maxItems": MAX_PARTS,
        "description": "Images to be like.",
    },
    "question": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "All else, as the JSON body has it.",
    },
}


@router.post("/search", responses=told(400, 404, 413, 415, 422), openapi_extra=describe_body(SearchIn, _FILES))
async def search(request: Request) -> SearchOut:
    """Find similar products: by images, words, products, stored images, vectors, or a weighted mix of them.

    What is asked with becomes one unit vector: the weighted mean of what is liked less half the weighted mean of what
    is not. The answer has distinct products, `limit` of them or all that match.
    """
    body = await read_body(request, "question", MAX_PARTS)
    service = service_of(request)
    return await service.desk.run(request, lambda: SearchOut.of(service.live.finder.find(_question(body, service))))


@router.post("/search/batch", responses=told(400, 404, 413, 415, 422), openapi_extra=describe_body(BatchIn))
async def search_batch(request: Request) -> BatchOut:
    """Answer several questions; one that cannot be answered gets a problem in its place."""
    body = await read_body(request)
    service, name = service_of(request), request_id(request)
    return await service.desk.run(request, lambda: _batch(body.read(BatchIn), service, name))


@router.get("/products/{product_id:path}/similar", responses=told(404, 422))
async def similar(
    request: Request,
    product_id: Annotated[str, Path(min_length=1, max_length=MAX_ID)],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 10,
    offset: Annotated[int, Query(ge=0, lt=MAX_REACH)] = 0,
    where: Annotated[
        list[str] | None,
        Query(max_length=100, description="A condition such as `price < 50`, or a filter in JSON; all have to hold."),
    ] = None,
) -> SearchOut:
    """Find the products most like one of the collection; it is left out of the answer."""
    service = service_of(request)

    def answer() -> SearchOut:
        question = Question(
            product_id=product_id, where=reject_location_filters(parse_filter(where or ())), limit=limit, offset=offset
        )
        return SearchOut.of(service.live.finder.find(question))

    return await service.desk.run(request, answer)


def _question(body: RequestBody, service: Service) -> Question:
    asked = body.read(SearchIn)
    images = tuple(Part(image=content) for content in body.files.get("image", ()))
    return asked.query(service.fetches().fetch, images)


def _batch(asked: BatchIn, service: Service, name: str) -> BatchOut:
    started = time.perf_counter()
    fetch = service.fetches().fetch
    understood = [_understood(one, fetch) for one in asked.queries]
    answers = iter(service.live.finder.find_many([one for one in understood if isinstance(one, Question)]))
    told = [next(answers) if isinstance(one, Question) else one for one in understood]
    return BatchOut(
        answers=[problem_of(one, name) if isinstance(one, Exception) else SearchOut.of(one) for one in told],
        took_ms=round((time.perf_counter() - started) * 1_000, 3),
    )


def _understood(one: SearchIn, fetch: Fetch) -> Question | BadQuery | BadFilter | BadImage | UnknownProduct:
    try:
        return one.query(fetch)
    except (BadQuery, BadFilter) as error:
        return error
