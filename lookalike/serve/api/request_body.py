"""Request bodies: JSON, or a multipart form with image files. Parsed on a thread and described in OpenAPI by hand."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from lookalike.schema.errors import BadQuery
from lookalike.serve.api.parameters import describe_repeated
from lookalike.serve.api.problems import MalformedBody, RequestRefused, explain_validation_errors

Body = TypeVar("Body", bound=BaseModel)

IMAGE_FIELD = "image"
"""The form field of image files; it may be repeated."""

_JSON = "application/json"
_FORM = "multipart/form-data"


class RequestBody:
    """JSON text that is not parsed yet, and the bytes of the image files sent with it."""

    def __init__(self, text: bytes, images: list[bytes]) -> None:
        self.text = text
        self.images = images

    def parse(self, model: type[Body]) -> Body:
        """Parse the JSON. Raises MalformedBody."""
        try:
            return model.model_validate_json(self.text)
        except ValidationError as error:
            raise MalformedBody(explain_validation_errors(error, model)) from None


async def read_body(request: Request, json_field: str = "", max_images: int = 0) -> RequestBody:
    """Receive a body. In a form, `json_field` holds the JSON; without `max_images`, forms are refused.

    Raises RequestRefused for another content type, BadQuery for an unknown form field and for a second `json_field`.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == _JSON:
        return RequestBody(await request.body(), [])
    if content_type == _FORM and max_images:
        async with request.form(max_files=max_images, max_fields=8, max_part_size=2**20) as form:
            return await _read_form(form, json_field)
    expected = f"{_JSON} or {_FORM}" if max_images else _JSON
    raise RequestRefused(415, f"a body of {content_type or 'no'} type is not understood; send {expected}")


def describe_body(model: type[BaseModel], form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe a body for OpenAPI. `form` has the properties of the multipart form, where one is accepted."""
    content: dict[str, Any] = {_JSON: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    if form is not None:
        content[_FORM] = {"schema": {"type": "object", "properties": form, "additionalProperties": False}}
    return {"requestBody": {"required": True, "content": content}}


def describe_form(json_field: str, max_images: int, description: str) -> dict[str, Any]:
    """Describe the properties of a form for OpenAPI: image files, and the JSON beside them."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": max_images}
    text = {"type": "string", "contentMediaType": _JSON, "description": "Everything else, as in the JSON body."}
    return {IMAGE_FIELD: {**files, "description": description}, json_field: text}


async def _read_form(form: FormData, json_field: str) -> RequestBody:
    text, images = b"{}", []
    if (count := len(form.getlist(json_field))) > 1:
        raise BadQuery(describe_repeated("form field", json_field, count))
    for name, value in form.multi_items():
        if name == json_field:
            text = await value.read() if isinstance(value, UploadFile) else value.encode(errors="surrogatepass")
        elif name == IMAGE_FIELD and isinstance(value, UploadFile):
            images.append(await value.read())
        else:
            kind = "file" if isinstance(value, UploadFile) else "field"
            raise BadQuery(f"unknown form {kind} {name!a}; send files as {IMAGE_FIELD} and JSON as {json_field}")
    return RequestBody(text, images)
