"""Refuses what a route would otherwise ignore: unknown query parameters, and a second value for a single one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request

from lookalike.schema.errors import BadQuery
from lookalike.schema.spelling import find_nearest

_MAX_SHOWN = 100
"""Characters of a name that a message repeats."""


async def check_parameters(request: Request) -> None:
    """Raise BadQuery for a query parameter that /openapi.json does not list for the route, or lists as a single one."""
    known = {parameter["name"]: _is_list(parameter["schema"]) for parameter in _list_parameters(request)}
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            raise BadQuery(describe_unknown("parameter", name, known))
        if count > 1 and not known[name]:
            raise BadQuery(describe_repeated("parameter", name, count))


def describe_unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is not known; propose the nearest one, or list those that are."""
    names = sorted(known)
    nearest = find_nearest(name, names)
    listed = f"use {', '.join(names)}" if names else "leave it out, there are none here"
    return f"unknown {kind} {name[:_MAX_SHOWN]!a}; {f'did you mean {nearest!r}?' if nearest else listed}"


def describe_repeated(kind: str, name: str, count: int) -> str:
    """Say that a name has several values where it takes one."""
    return f"the {kind} {name[:_MAX_SHOWN]!a} is given {count} times; give it once"


def _list_parameters(request: Request) -> list[Mapping[str, Any]]:
    """List what the description of the API says about the query parameters of the route."""
    path = request.app.openapi()["paths"][request.scope["route"].path_format]
    parameters = path[request.method.lower()].get("parameters", ())
    return [parameter for parameter in parameters if parameter["in"] == "query"]


def _is_list(schema: Mapping[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in (schema, *schema.get("anyOf", ())))
