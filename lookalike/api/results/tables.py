"""The result of a search as a table: a row for each hit, a column for each metadata field."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lookalike.schema.errors import BadSettings
from lookalike.schema.product import Hit

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {"product_id": pa.string(), "score": pa.float64(), "image_id": pa.string(), "image": pa.string()}
_IMAGES = pa.list_(pa.struct([("image_id", pa.string()), ("score", pa.float64()), ("image", pa.string())]))


def to_arrow(hits: Sequence[Hit]) -> Any:
    """Return a pyarrow.Table. A field whose values fit no common column type becomes JSON text."""
    names, arrays = [], []
    for name, values in _hit_columns(hits).items():
        names.append(name)
        arrays.append(pa.array(values, _IMAGES if name == "images" else _COLUMNS[name]))
    for name, values in _metadata_columns(hits).items():
        names.append(name)
        arrays.append(_array(values))
    return pa.table(arrays, names=names)


def to_pandas(hits: Sequence[Hit]) -> "pd.DataFrame":
    """Return a pandas.DataFrame. Raises BadSettings without pandas."""
    try:
        import pandas as pd
    except ImportError as error:
        raise BadSettings("to_pandas needs pandas: pip install pandas; to_arrow works without it") from error
    return pd.DataFrame({**_hit_columns(hits), **_metadata_columns(hits)})


def _hit_columns(hits: Sequence[Hit]) -> dict[str, list[Any]]:
    """The columns that every hit has, and `images` where hits have several."""
    columns = {name: [getattr(hit, name) for hit in hits] for name in _COLUMNS}
    if any(hit.images for hit in hits):
        columns["images"] = [[_as_dict(image) for image in hit.images] for hit in hits]
    return columns


def _as_dict(image: Any) -> dict[str, Any]:
    return {"image_id": image.image_id, "score": image.score, "image": image.image}


def _metadata_columns(hits: Sequence[Hit]) -> dict[str, list[Any]]:
    """A column for each field that any hit has; one with the name of another column becomes `metadata.NAME`."""
    reserved = {*_COLUMNS, "images"}
    names = dict.fromkeys(name for hit in hits for name in hit.metadata)
    return {
        f"metadata.{name}" if name in reserved else name: [hit.metadata.get(name) for hit in hits] for name in names
    }


def _array(values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        return pa.array(texts, pa.string())
