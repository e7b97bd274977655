"""The sign-in form for browsers: it takes an API key and stores it in a cookie."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from lookalike.schema.errors import BadQuery
from lookalike.serve.api.parameters import describe_unknown
from lookalike.serve.middleware import KEY_COOKIE
from lookalike.serve.service import get_service
from lookalike.serve.web.templating import render_page

router = APIRouter(include_in_schema=False)

_FORM_FIELDS = frozenset({"key", "then"})


@router.get("/login")
async def show_login(request: Request, then: str = "/") -> Response:
    """Show the form, or go to the page if the service needs no keys."""
    if not get_service(request).settings.keys.required:
        return RedirectResponse("/", 303)
    return render_page("login.html", then=_local_path(then), is_wrong=False)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Check the key and set the cookie, which the browser keeps until it is closed. Raises BadQuery."""
    async with request.form(max_files=0, max_fields=8) as form:
        for name in form.keys() - _FORM_FIELDS:
            raise BadQuery(describe_unknown("form field", name, _FORM_FIELDS))
        key, then = str(form.get("key", "")).strip(), _local_path(str(form.get("then", "/")))
    keys = get_service(request).settings.keys
    if keys.required and keys.may_write(key) is None:
        return render_page("login.html", 403, then=then, is_wrong=True)
    response = RedirectResponse(then, 303)
    if keys.required:
        secure = request.url.scheme == "https"
        response.set_cookie(KEY_COOKIE, key, path="/", secure=secure, httponly=True, samesite="strict")
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Delete the cookie."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(KEY_COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _local_path(then: str) -> str:
    """Return the path to go to after signing in: never another host, which would be an open redirect."""
    return then if then.startswith("/?") else "/"
