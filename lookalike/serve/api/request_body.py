"""Bodies of requests: JSON, or multipart with files; understood on a thread, described in OpenAPI by hand."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from lookalike.schema.errors import BadQuery
from lookalike.serve.api.problems import MalformedBody, RequestRefused, mistakes

Body = TypeVar("Body", bound=BaseModel)

_JSON = "application/json"
_FORM = "multipart/form-data"


class RequestBody:
    """What came with a request: JSON text, and the bytes of files by the name of their field."""

    def __init__(self, text: bytes, files: dict[str, list[bytes]]) -> None:
        self.text = text
        self.files = files

    def read(self, kind: type[Body]) -> Body:
        """Understand the JSON. Raises Misread."""
        try:
            return kind.model_validate_json(self.text)
        except ValidationError as error:
            raise MalformedBody(mistakes(error)) from None


async def read_body(request: Request, field: str = "", most_files: int = 0) -> RequestBody:
    """Take in a body; in a form, the JSON stands in the field `field`. Raises Refused for other kinds of bodies."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON:
        return RequestBody(await request.body(), {})
    if kind == _FORM and most_files:
        async with request.form(max_files=most_files, max_fields=8, max_part_size=2**20) as form:
            return await _from_form(form, field)
    kinds = f"{_JSON} or {_FORM}" if most_files else _JSON
    raise RequestRefused(415, f"a body of {kind or 'no'} type is not understood; send {kinds}")


def describe_body(kind: type[BaseModel], form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe such a body for OpenAPI; `form` are the properties of the multipart form."""
    content: dict[str, Any] = {_JSON: {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    if form is not None:
        content[_FORM] = {"schema": {"type": "object", "properties": form, "additionalProperties": False}}
    return {"requestBody": {"required": True, "content": content}}


async def _from_form(form: FormData, field: str) -> RequestBody:
    files: dict[str, list[bytes]] = {}
    text = b"{}"
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name, []).append(await value.read())
        elif name == field:
            text = value.encode(errors="surrogatepass")
        else:
            raise BadQuery(f"the form has a field {name!a} that is not known; there are {field} and files")
    return RequestBody(text, files)
