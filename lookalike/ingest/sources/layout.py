"""What an image's place in its folder says of it: the product and its metadata."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.metadata import RESERVED_NAMES, TYPES

_PART = re.compile(r"\{(?P<name>\w+)(?::(?P<type>\w+))?\}")


@dataclass(frozen=True, slots=True)
class PathFields:
    """What was read from a path."""

    product_id: str
    metadata: dict[str, Any]


class FolderRule:
    """The rule without a template: the folder is the product, the folders above it are its category."""

    description = (
        "a folder is a product by its name, the folders above it are its category, "
        "an image directly in SOURCE is a product of its own"
    )

    def place(self, path: str) -> PathFields:
        """Read a path relative to the source: `shoes/boots/b7/front.jpg` is product b7 of category shoes/boots."""
        *folders, name = PurePosixPath(path).parts
        if not folders:
            return PathFields(PurePosixPath(name).stem, {})
        *above, product_id = folders
        return PathFields(product_id, {"category": "/".join(above)} if above else {})


class Layout:
    """A template such as `{category}/{product_id}/{image}`, whose parts become the product id and metadata.

    A part matches within one level of the path. `{price:float}` and `{stock:int}` are stored as numbers, `{image}` is
    the file's name and `{_}` whatever does not matter.
    """

    def __init__(self, template: str) -> None:
        self.description = template
        parts = [(match["name"], match["type"] or "text") for match in _PART.finditer(template)]
        _check(template, parts)
        self._types = dict(parts)
        self._pattern = re.compile(_pattern(template), re.DOTALL)

    def place(self, path: str) -> PathFields:
        """Read a path relative to the source. Raises ValueError with the reason when the template does not fit."""
        match = self._pattern.fullmatch(path)
        if match is None:
            raise ValueError(f"the path does not fit the layout {self.description}")
        values: dict[str, Any] = {}
        for name, text in match.groupdict().items():
            try:
                values[name] = TYPES[self._types[name]](text)
            except ValueError:
                raise ValueError(f"{name} is {text!r}, not {self._types[name]}") from None
        return PathFields(match["product_id"], {name: v for name, v in values.items() if name not in RESERVED_NAMES})


def _check(template: str, parts: list[tuple[str, str]]) -> None:
    names = [name for name, _ in parts]
    left = _PART.sub("", template)
    twice = {name for name in names if name != "_" and names.count(name) > 1}
    taken = set(names) & (set(COLUMNS) - {"product_id", "image"})
    if "{" in left or "}" in left or not all(name.isidentifier() for name in names):
        problem = "a part is written {name} or {name:int}"
    elif "product_id" not in names:
        problem = "there is no {product_id}"
    elif twice:
        problem = f"{', '.join(sorted(twice))} is named twice"
    elif taken:
        problem = f"{', '.join(sorted(taken))} is a column of the collection already; take another name"
    elif not {kind for _, kind in parts} <= set(TYPES):
        problem = f"a part can be of type {', '.join(TYPES)}"
    else:
        return
    raise BadSettings(f"--layout {template!r}: {problem}; take for example '{{category}}/{{product_id}}/{{image}}'")


def _pattern(template: str) -> str:
    pattern, end = "", 0
    for match in _PART.finditer(template):
        pattern += re.escape(template[end : match.start()])
        # No slash in a part: a template says how deep the images are.
        pattern += "[^/]+" if match["name"] == "_" else f"(?P<{match['name']}>[^/]+{'' if _last(match) else '?'})"
        end = match.end()
    return pattern + re.escape(template[end:])


def _last(match: re.Match[str]) -> bool:
    """A part that fills the rest of its level takes all of it."""
    return match.string[match.end() : match.end() + 1] in ("", "/")
