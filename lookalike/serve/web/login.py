"""The way in for browsers: a form that takes an API key and keeps it as a cookie."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from lookalike.serve.middleware import COOKIE
from lookalike.serve.service import service_of
from lookalike.serve.web.templating import page

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def form(request: Request, then: str = "/") -> Response:
    """Ask for a key, where one is needed."""
    if not service_of(request).settings.keys.required:
        return RedirectResponse("/", 303)
    return page("login.html", then=_ours(then), wrong=False)


@router.post("/login")
async def enter(request: Request) -> Response:
    """Check a key and keep it, as long as the browser is open."""
    async with request.form(max_files=0, max_fields=8) as sent:
        key, then = str(sent.get("key", "")).strip(), _ours(str(sent.get("then", "/")))
    keys = service_of(request).settings.keys
    if keys.required and keys.may_write(key) is None:
        return page("login.html", 403, then=then, wrong=True)
    response = RedirectResponse(then, 303)
    if keys.required:
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, key, path="/", secure=secure, httponly=True, samesite="strict")
    return response


@router.post("/logout")
async def leave(request: Request) -> Response:
    """Forget the key."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _ours(then: str) -> str:
    """Nobody is led from here to another host."""
    return then if then.startswith("/?") else "/"
