"""Read a product id and metadata from the path of an image."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from lookalike.schema.errors import BadSettings
from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.metadata import RESERVED_NAMES, TYPES, ColumnTypes, convert_value
from lookalike.schema.number_advice import advise_on_value
from lookalike.schema.numbers import PLAIN, ValueFormat

_PLACEHOLDER = re.compile(r"\{(?P<name>\w+)(?::(?P<type>\w+))?\}")


@dataclass(frozen=True, slots=True)
class PathFields:
    """What a path says: the product id and the metadata."""

    product_id: str
    metadata: dict[str, Any]


class FolderRule:
    """The rule without a template: the folder is the product, the folders above it are its category."""

    description = (
        "a folder is a product by its name, the folders above it are its category, "
        "an image directly in SOURCE is a product of its own"
    )

    def read_path(self, path: str) -> PathFields:
        """Read a path relative to the source: `shoes/boots/b7/front.jpg` is product b7 of category shoes/boots."""
        *folders, name = PurePosixPath(path).parts
        if not folders:
            return PathFields(PurePosixPath(name).stem, {})
        *above, product_id = folders
        return PathFields(product_id, {"category": "/".join(above)} if above else {})


class Layout:
    """A template such as `{category}/{product_id}/{image}`; its placeholders become the product id and metadata.

    A placeholder matches within one level of the path. `{price:float}` and `{stock:int}` are stored as numbers, and so
    is a placeholder without a type that `fields` declares. The values of `{image}`, the file's name, and `{_}` are not
    stored. Raises BadSettings for an invalid template.
    """

    def __init__(self, template: str, fields: ColumnTypes | None = None, values: ValueFormat = PLAIN) -> None:
        self.description = template
        self._values = values
        declared = {name: kind for name, kind in (fields or {}).items() if name not in RESERVED_NAMES}
        placeholders = [
            (match["name"], match["type"] or declared.get(match["name"], "text"))
            for match in _PLACEHOLDER.finditer(template)
        ]
        _check_template(template, placeholders)
        self._types = dict(placeholders)
        self._pattern = re.compile(_build_pattern(template), re.DOTALL)

    def matches(self, path: str) -> bool:
        """Return whether the template fits a path, whatever the types of its fields."""
        return self._pattern.fullmatch(path) is not None

    def read_path(self, path: str) -> PathFields:
        """Read a path relative to the source. Raises ValueError with the reason when the template does not fit."""
        match = self._pattern.fullmatch(path)
        if match is None:
            raise ValueError(f"the path does not fit the layout {self.description}")
        values: dict[str, Any] = {}
        for name, text in match.groupdict().items():
            kind = self._types[name]
            if name not in RESERVED_NAMES and self._values.is_null(text):
                continue
            try:
                values[name] = convert_value(text, kind, self._values)
            except ValueError:
                advice = advise_on_value(text, kind, self._values)
                raise ValueError(f"{name} is {text!r}, not {kind}{advice}") from None
        return PathFields(match["product_id"], {name: v for name, v in values.items() if name not in RESERVED_NAMES})


def _check_template(template: str, placeholders: list[tuple[str, str]]) -> None:
    names = [name for name, _ in placeholders]
    literal = _PLACEHOLDER.sub("", template)
    repeated = {name for name in names if name != "_" and names.count(name) > 1}
    taken = set(names) & (set(COLUMNS) - {"product_id", "image"})
    if "{" in literal or "}" in literal or not all(name.isidentifier() for name in names):
        problem = "write a placeholder as {name} or {name:int}"
    elif "product_id" not in names:
        problem = "there is no {product_id}"
    elif repeated:
        problem = f"{', '.join(sorted(repeated))} is named twice"
    elif taken:
        problem = f"{', '.join(sorted(taken))} is a column of the collection already; take another name"
    elif not {kind for _, kind in placeholders} <= set(TYPES):
        problem = f"the type of a placeholder is one of {', '.join(TYPES)}"
    else:
        return
    raise BadSettings(f"--layout {template!r}: {problem}; for example '{{category}}/{{product_id}}/{{image}}'")


def _build_pattern(template: str) -> str:
    pattern, end = "", 0
    for match in _PLACEHOLDER.finditer(template):
        pattern += re.escape(template[end : match.start()])
        # No slash in a value: the template says how deep the images are.
        lazy = "" if _ends_level(match) else "?"
        pattern += "[^/]+" if match["name"] == "_" else f"(?P<{match['name']}>[^/]+{lazy})"
        end = match.end()
    return pattern + re.escape(template[end:])


def _ends_level(match: re.Match[str]) -> bool:
    """Return whether a placeholder is the last of its path level, and so takes all that is left of it."""
    return match.string[match.end() : match.end() + 1] in ("", "/")
