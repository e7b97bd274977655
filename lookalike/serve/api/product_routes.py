"""Routes about what the collection holds: /products/{id} and /images/{image_id}."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Request, Response

from lookalike.schema.errors import BadQuery
from lookalike.serve.api.problems import told
from lookalike.serve.api.request_body import RequestBody, describe_body, read_body
from lookalike.serve.api.schemas import MAX_ID, MAX_IMAGES, Fetch, ImageIn, ProductIn, ProductOut, WriteOut
from lookalike.serve.service import Service, service_of

router = APIRouter(tags=["products"])

ProductId = Annotated[str, Path(min_length=1, max_length=MAX_ID)]

_FILES = {
    "image": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "maxItems": MAX_IMAGES,
        "description": "The product's images.",
    },
    "product": {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "All else, as the JSON body has it.",
    },
}


@router.get("/products/{product_id:path}", responses=told(404, 422))
async def get_product(request: Request, product_id: ProductId) -> ProductOut:
    """Tell a product's images and metadata."""
    service = service_of(request)
    return await service.desk.run(request, lambda: service.catalogue.get(service.live.version.store, product_id))


@router.put(
    "/products/{product_id:path}",
    responses=told(400, 404, 413, 415, 422, 507),
    openapi_extra=describe_body(ProductIn, _FILES),
)
async def put_product(request: Request, product_id: ProductId) -> WriteOut:
    """Put a product: these images and this metadata, in the place of what it was before.

    Without images it keeps those that it has. An image that is there already is not embedded again. What another
    source names (`lookalike ingest`) comes back with its next run.
    """
    body = await read_body(request, "product", MAX_IMAGES)
    service = service_of(request)
    return await service.write_desk.run(request, lambda: _put(body, product_id, service))


@router.delete("/products/{product_id:path}", status_code=204, responses=told(404, 422, 507))
async def delete_product(request: Request, product_id: ProductId) -> Response:
    """Remove a product with all its images."""
    service = service_of(request)
    await service.write_desk.run(request, lambda: service.catalogue.remove(service.live.version, product_id))
    return Response(status_code=204)


@router.get(
    "/images/{image_id}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The image that `If-None-Match` names is still the same."},
        **told(404, 422),
    },
)
async def get_image(
    request: Request,
    image_id: Annotated[str, Path(min_length=1, max_length=64)],
    size: Literal["64", "128", "256", "512", "1024"] | None = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Get an image of the collection, as it is or with no edge longer than `size`."""
    service = service_of(request)
    edge = None if size is None else int(size)
    shown = await service.image_desk.run(
        request, lambda: service.images.show(service.live.version.store, image_id, edge)
    )
    # An image from a shop's folder is shown, never run: an SVG or HTML in disguise has nothing to do here.
    headers = {
        "ETag": f'"{shown.etag}"',
        "Cache-Control": "private, max-age=300",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    if if_none_match is not None and f'"{shown.etag}"' in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(shown.content, media_type=shown.media_type, headers=headers)


def _put(body: RequestBody, product_id: str, service: Service) -> WriteOut:
    asked, fetch = body.read(ProductIn), service.fetches().fetch
    images = [*body.files.get("image", ()), *(_content(image, fetch) for image in asked.images or ())]
    if len(images) > MAX_IMAGES:
        raise BadQuery(f"{len(images)} images are too many; {MAX_IMAGES} is the limit")
    return service.catalogue.put(service.live.version, product_id, images or None, asked.metadata)


def _content(image: ImageIn, fetch: Fetch) -> bytes:
    if (image.image is None) == (image.image_url is None):
        raise BadQuery("an image is either `image`, the image in Base64, or `image_url`")
    return fetch(image.image_url) if image.image is None and image.image_url else image.image or b""
