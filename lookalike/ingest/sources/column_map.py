"""Which columns of a manifest are read under which names, and what to do when one is not there."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from lookalike.ingest.sources.metadata import ManifestRow
from lookalike.schema.errors import BadSettings, BadSource
from lookalike.schema.filters.expression import COLUMNS
from lookalike.schema.spelling import find_nearest

_EXAMPLE = "for example --column product_id=sku"
_MAX_LISTED = 30
"""How many columns a message lists."""

_NEAR = 0.75
"""How much two names must have in common to be taken for one with a typing error."""

_USUAL_NAMES = {
    "product_id": (
        *(
            "productid",
            "sku",
            "productcode",
            "productno",
            "productnumber",
            "product",
            "id",
            "gid",
            "handle",
            "variantsku",
        ),
        *("itemid", "item", "articleid", "articlenumber", "article", "code", "asin", "gtin", "ean", "upc"),
    ),
    "image": (
        *("imagelink", "imageurl", "imageuri", "imagesrc", "imagepath", "imagefile", "images", "gimagelink", "img"),
        *("imgurl", "photo", "photourl", "photos", "picture", "pictureurl", "pictures", "path", "filepath", "filename"),
        *("file", "url", "uri", "link"),
    ),
}
"""What shops call the two columns that a manifest needs, likeliest first; in small letters and digits only."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The name under which a column is read → its name in the manifest: `{"product_id": "sku"}`.

    All other columns keep their names. Raises BadSettings for names that cannot be used.
    """

    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names."""
        readers: dict[str, str] = {}
        for name, column in self.columns.items():
            if not (isinstance(name, str) and isinstance(column, str) and name and column):
                raise BadSettings(f"--column {name!r}={column!r}: write NAME=COLUMN, {_EXAMPLE}")
            if name in COLUMNS and name not in _USUAL_NAMES:
                raise BadSettings(
                    f"{_option(name, column)}: {name} is a column of the collection already; take another name"
                )
            if column in readers:
                raise BadSettings(
                    f"--column: the column {column!r} is named twice, as {readers[column]} and {name}; leave one out"
                )
            readers[column] = name

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Read declarations such as `product_id=sku`. Raises BadSettings."""
        columns: dict[str, str] = {}
        for text in texts:
            name, _, column = (part.strip() for part in text.partition("="))
            if not name or not column:
                raise BadSettings(f"--column {text!r}: write NAME=COLUMN, {_EXAMPLE}")
            if name in columns:
                raise BadSettings(
                    f"--column: {name} is read from two columns, {columns[name]!r} and {column!r}; leave one out"
                )
            columns[name] = column
        return cls(columns)

    @property
    def needed(self) -> set[str]:
        """The columns that a manifest must have, by their names in the manifest."""
        return {*self.columns.values(), *(name for name in _USUAL_NAMES if name not in self.columns)}

    def rename_row(self, row: ManifestRow) -> ManifestRow:
        """Return a row with the names that are read. Raises ValueError when two values get the same name."""
        names = {column: name for name, column in self.columns.items()}
        renamed = {names.get(column, column): value for column, value in row.items()}
        if len(renamed) < len(row):
            raise ValueError(f"it has two values for {', '.join(_list_taken(names.get(c, c) for c in row))}")
        return renamed

    def rename_header(self, path: str, header: Sequence[str]) -> list[str]:
        """Return the columns of a manifest by the names that are read; a column without a name stays as it is.

        Raises BadSource when a column is missing, or a name is not unique.
        """
        columns = [column for column in header if column]
        repeated = _list_taken(columns)
        if repeated:
            raise BadSource(f"SOURCE {path!r} has two columns of the name {', '.join(repeated)}; rename one")
        for name, column in self.columns.items():
            if column not in columns:
                raise BadSource(_describe_absent(path, name, column, columns))
        names = {column: name for name, column in self.columns.items()}
        renamed = [names.get(column, column) for column in header]
        for name in _list_taken(filter(None, renamed)):
            raise BadSource(
                f"{_option(name, self.columns[name])}: SOURCE {path!r} has a column {name} too; to read that under "
                f"another name, add {_option(f'old_{name}', name)}"
            )
        missing = [name for name in _USUAL_NAMES if name not in renamed]
        if missing:
            raise BadSource(_describe_missing(path, missing, columns))
        return renamed


NO_MAP = ColumnMap()


def list_columns(columns: Sequence[str]) -> str:
    """Return the names of columns for a message."""
    more = f" and {len(columns) - _MAX_LISTED} more" if len(columns) > _MAX_LISTED else ""
    return (", ".join(columns[:_MAX_LISTED]) or "none") + more


def _list_taken(names: Iterable[str]) -> list[str]:
    every = list(names)
    return sorted({name for name in every if every.count(name) > 1})


def _describe_absent(path: str, name: str, column: str, columns: Sequence[str]) -> str:
    near = find_nearest(column, columns)
    if name in columns:
        advice = f"; did you mean {_option(column, name)} ?"
    else:
        advice = f"; did you mean {near!r}?" if near else "."
    return f"{_option(name, column)}: SOURCE {path!r} has no column {column!r}{advice} It has {list_columns(columns)}"


def _describe_missing(path: str, missing: Sequence[str], columns: Sequence[str]) -> str:
    problem = f"SOURCE {path!r} has no column {' and no '.join(missing)}; it has {list_columns(columns)}"
    if not columns:
        return problem
    options = " ".join(_option(name, _guess_column(name, columns) or "COLUMN") for name in missing)
    return f"{problem}. To read others as these: {options}"


def _guess_column(name: str, columns: Sequence[str]) -> str | None:
    """Return the column that is most likely the product id or the image."""
    spellings = {re.sub(r"[^a-z0-9]", "", column.casefold()): column for column in reversed(columns)}
    for usual in _USUAL_NAMES[name]:
        if usual in spellings:
            return spellings[usual]
    near = find_nearest(name.replace("_", ""), spellings, _NEAR)
    return spellings[near] if near else None


def _option(name: str, column: str) -> str:
    """Return the option for a shell; the Python API finds it in a message by this form."""
    pair = f"{name}={column}"
    return f"--column {pair}" if re.fullmatch(r"[\w=-]+", pair) else f"--column '{pair}'"
