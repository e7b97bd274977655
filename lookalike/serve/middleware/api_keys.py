"""Who may send a request: the holder of an API key, or without keys this machine alone."""

from urllib.parse import urlencode, urlsplit

import structlog
from starlette.requests import Request

from lookalike.serve.api.problems import RequestRefused
from lookalike.serve.middleware.paths import is_public
from lookalike.serve.settings import Settings, is_loopback

KEY_COOKIE = "lookalike-key"
"""The cookie in which a browser keeps the key that was entered at /login."""

_WRITING = ("PUT", "DELETE")
_READING = ("GET", "HEAD")

_log = structlog.get_logger("lookalike")


def check_api_key(request: Request, settings: Settings) -> None:
    """Raise RequestRefused for a request that needs a key and has none, a wrong one, or one that may not write.

    A form that the page of another site makes a browser send is refused too.
    """
    _check_site(request)
    if is_public(request.scope["path"]):
        return
    if not settings.keys.required:
        _check_host(request, settings.host)
        return
    can_write = settings.keys.may_write(_read_key(request))
    if can_write is None and _is_page_visit(request):
        raise RequestRefused(303, "the page needs an API key; enter it at /login", {"Location": _login_url(request)})
    if can_write is None:
        raise RequestRefused(401, "an API key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
    if not can_write and request.method in _WRITING:
        raise RequestRefused(403, "this API key may read, but not write")


def _check_site(request: Request) -> None:
    """Raise RequestRefused for what a browser sends for another site, unless a program has added a key."""
    is_foreign = request.headers.get("sec-fetch-site") == "cross-site"
    has_key = "authorization" in request.headers or "x-api-key" in request.headers
    if is_foreign and not has_key and request.method not in _READING:
        raise RequestRefused(
            403, "a page of another site sent this; send it from this service's own page, or with a key"
        )


def _check_host(request: Request, bound_host: str) -> None:
    # DNS rebinding: a foreign page whose host name resolves to this machine must not read the collection.
    if not _is_own_host(request.headers.get("host", ""), bound_host):
        _log.warning("a request for another host was refused; to serve others, set LOOKALIKE_API_KEYS")
        raise RequestRefused(403, "this service answers requests from its own machine only")


def _read_key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return request.headers.get("x-api-key") or request.cookies.get(KEY_COOKIE, "")


def _is_page_visit(request: Request) -> bool:
    """Whether a browser wants to show the page, rather than a program to read a response."""
    return request.url.path in ("/", "/logout") and "text/html" in request.headers.get("accept", "")


def _login_url(request: Request) -> str:
    """Return the URL of the login form, which leads back to the requested search."""
    query = request.url.query if request.method == "GET" else ""
    return f"/login?{urlencode({'then': f'/?{query}'})}" if query else "/login"


def _is_own_host(host: str, bound_host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) or name == bound_host
