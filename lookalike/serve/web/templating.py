"""Pages: their templates, the files that they load, and the headers that keep them to themselves."""

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lookalike.serve.api.problems import RequestRefused
from lookalike.serve.runtime.thumbnails import name_of

router = APIRouter(include_in_schema=False)

_HERE = Path(__file__).parent
_LONGEST = 300
"""Characters of a value that a card has room for."""

_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {file.name: file.read_bytes() for file in sorted((_HERE / "static").iterdir())}
_ADDRESSES = {name: f"/static/{name_of(content)}/{name}" for name, content in _FILES.items()}
"""An address names the content: a browser keeps the file for good, and gets another one by another name."""


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str) -> Response:
    """Send a file that pages load."""
    address = f"/static/{digest}/{name}"
    if _ADDRESSES.get(name) != address:
        raise RequestRefused(404, f"there is no {address}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(_FILES[name], media_type=_KINDS.get(Path(name).suffix, "text/plain"), headers=headers)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Write a page."""
    return HTMLResponse(_templates.get_template(template).render(values), status, headers=_HEADERS)


def shown(value: Any) -> str:
    """Write a value of the metadata for people, cut where it is long."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.15g}"
    elif isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        text = ", ".join(map(shown, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["shown"] = shown
_templates.globals["static"] = _ADDRESSES
_templates.globals["spoken"] = {"true": "yes", "false": "no"}
