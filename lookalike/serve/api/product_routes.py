"""Routes for what the collection holds: /products/{id} and /images/{image_id}."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from lookalike.schema.errors import BadQuery
from lookalike.serve.api.problems import GUARDED, STORE, document_problems
from lookalike.serve.api.product_path import PRODUCT_PATH
from lookalike.serve.api.request_body import RequestBody, describe_body, describe_form, read_body
from lookalike.serve.api.schemas import MAX_ID, MAX_IMAGES, FetchImage, ImageIn, ProductIn, ProductOut, WriteOut
from lookalike.serve.runtime.active_version import OpenVersion
from lookalike.serve.service import Service, get_service

router = APIRouter(tags=["products"])

ProductId = Annotated[str, Path(min_length=1, max_length=MAX_ID)]
DryRun = Annotated[bool, Query(description="Say what would be written or removed, and change nothing.")]
Put = Callable[[OpenVersion, str, Sequence[bytes] | None, dict[str, Any]], WriteOut]

_JSON_FIELD = "product"
_FORM = describe_form(_JSON_FIELD, MAX_IMAGES, "The product's images.")


@router.get(PRODUCT_PATH, responses=document_problems(*GUARDED, *STORE, 404))
async def get_product(request: Request, product_id: ProductId) -> ProductOut:
    """Return a product's images and metadata."""
    service = get_service(request)
    return await service.executor.run(request, lambda: service.products.get(service.live.version.store, product_id))


@router.put(
    PRODUCT_PATH,
    responses=document_problems(*GUARDED, *STORE, 400, 404, 408, 415, 507),
    openapi_extra=describe_body(ProductIn, _FORM),
)
async def put_product(request: Request, product_id: ProductId, dry_run: DryRun = False) -> WriteOut:
    """Replace a product: its images and its metadata.

    Without images the product keeps those that it has. An image that is already stored is not embedded again. Products
    that another source has too come back with that source's next run.
    """
    body = await read_body(request, _JSON_FIELD, MAX_IMAGES)
    service = get_service(request)
    write = service.products.plan_put if dry_run else service.products.put
    return await service.write_executor.run(request, lambda: _put(service, write, product_id, body))


@router.delete(
    PRODUCT_PATH,
    status_code=204,
    response_class=Response,
    responses={
        200: {"model": WriteOut, "description": "With `dry_run`: what would be removed."},
        204: {"description": "The product is removed."},
        **document_problems(*GUARDED, *STORE, 404, 507),
    },
)
async def delete_product(request: Request, product_id: ProductId, dry_run: DryRun = False) -> Response:
    """Remove a product and all its images."""
    service = get_service(request)
    version, products = service.live.version, service.products
    if dry_run:
        plan = await service.write_executor.run(request, lambda: products.plan_removal(version, product_id))
        return JSONResponse(plan.model_dump())
    await service.write_executor.run(request, lambda: products.remove(version, product_id))
    return Response(status_code=204)


@router.get(
    "/images/{image_id}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The image that `If-None-Match` names has not changed."},
        **document_problems(*GUARDED, *STORE, 404),
    },
)
async def get_image(
    request: Request,
    image_id: Annotated[str, Path(min_length=1, max_length=64)],
    size: Literal["64", "128", "256", "512", "1024"] | None = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return a stored image, as it is or with no edge longer than `size`."""
    service = get_service(request)
    edge = None if size is None else int(size)
    shown = await service.image_executor.run(
        request, lambda: service.thumbnails.get_image(service.live.version.store, image_id, edge)
    )
    # A browser must show an image from a shop's folder and never run it: it could be HTML or SVG in disguise.
    headers = {
        "ETag": f'"{shown.etag}"',
        "Cache-Control": "private, max-age=300",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if if_none_match is not None and f'"{shown.etag}"' in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(shown.content, media_type=shown.media_type, headers=headers)


def _put(service: Service, write: Put, product_id: str, body: RequestBody) -> WriteOut:
    product, fetch = body.parse(ProductIn), service.make_fetcher().fetch
    images = [*body.images, *(_load_image(image, fetch) for image in product.images or ())]
    if len(images) > MAX_IMAGES:
        raise BadQuery(f"{len(images)} images are too many; {MAX_IMAGES} is the limit")
    return write(service.live.version, product_id, images or None, product.metadata)


def _load_image(image: ImageIn, fetch: FetchImage) -> bytes:
    if (image.image is None) == (image.image_url is None):
        raise BadQuery("an image has either `image`, the file in Base64, or `image_url`")
    return fetch(image.image_url) if image.image is None and image.image_url else image.image or b""
