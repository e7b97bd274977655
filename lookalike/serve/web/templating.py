"""Renders HTML pages and serves their static files, both with strict security headers."""

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lookalike.serve.api.problems import RequestRefused
from lookalike.serve.runtime.thumbnails import hash_bytes

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent
_MAX_CHARACTERS = 300
"""Longer values are cut, because a card has no room for more."""

_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC_FILES = {file.name: file.read_bytes() for file in sorted((_FOLDER / "static").iterdir())}
_STATIC_URLS = {name: f"/static/{hash_bytes(content)}/{name}" for name, content in _STATIC_FILES.items()}
"""The URL of a file holds a hash of its content, so that browsers may cache it forever."""


@router.get("/static/{digest}/{name}")
async def static(digest: str, name: str) -> Response:
    """Send a static file of the pages."""
    url = f"/static/{digest}/{name}"
    if _STATIC_URLS.get(name) != url:
        raise RequestRefused(404, f"no file {url}")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    media_type = _MEDIA_TYPES.get(Path(name).suffix, "text/plain")
    return Response(_STATIC_FILES[name], media_type=media_type, headers=headers)


def render_page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template to a response with the security headers."""
    return HTMLResponse(_templates.get_template(template).render(values), status, headers=_HEADERS)


def format_value(value: Any) -> str:
    """Format a metadata value for a card, cut if it is long."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.15g}"
    elif isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        text = ", ".join(map(format_value, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"


def format_choice(value: str) -> str:
    """Format the value of a checkbox: true and false as yes and no, as on the cards."""
    return {"true": "yes", "false": "no"}.get(value, value)


_templates = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["format_value"] = format_value
_templates.filters["format_choice"] = format_choice
_templates.globals["static"] = _STATIC_URLS
