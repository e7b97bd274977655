"""Moving a source: once its images are stored under its new name, the rows of the old name are deleted."""

import hashlib

from lookalike.ingest.pipeline.diff import Diff, ExistingImage
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope
from lookalike.ingest.pipeline.known_content import has_source
from lookalike.ingest.pipeline.prune import delete_rows
from lookalike.ingest.reports.report import Report
from lookalike.ingest.threshold import MoveOptions
from lookalike.schema.errors import BadSettings, LimitExceeded
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store


def require_source(store: Store, move: MoveOptions, new_name: str) -> None:
    """Raise BadSettings when the collection has no rows of the source to move, unless they were moved here before."""
    if not has_source(store, move.source) and store.read_property(_property(move.source)) != new_name:
        raise BadSettings(describe_unknown_source(store, move.source))


def describe_unknown_source(store: Store, source: str) -> str:
    """Return the message that there is no such source, and which ones there are."""
    sources = sorted({row["source"] for row in store.rows(fields=["source"])})
    return f"there is no source {source!r} in {store.name!r}; it has {', '.join(map(repr, sources)) or 'no rows'}"


def read_source(store: Store, source: str) -> dict[str, ExistingImage]:
    """Return the rows of a source, by key."""
    return ExistingRows(store, RowScope(source, column_in("source", [source]))).by_id


def delete_moved(diff: Diff, store: Store, report: Report, move: MoveOptions, new_name: str) -> None:
    """Delete the rows of the old name; call it after the whole source was ingested under the new one.

    Raises LimitExceeded, with nothing deleted, when more than `max_removals` of them have no counterpart: a row of the
    new name with the same product and bytes.
    """
    old, new = read_source(store, move.source), read_source(store, new_name)
    counterparts = {(row.product_id, row.image_hash) for row in new.values()}
    lost = sum((row.product_id, row.image_hash) not in counterparts for row in old.values())
    if lost > move.max_removals.of(len(old)) or (lost and not diff.is_complete):
        raise LimitExceeded(
            f"{lost} of the {len(old)} rows of {move.source!r} have no row of the same product and bytes in "
            f"{new_name!r}, more than --max-removals {move.max_removals.text}. Nothing was removed: the rows of both "
            f"stay. Is the new source complete, and mounted? If you mean it, add --max-removals {lost}"
        )
    # Before the first row is deleted: a run that is killed after the last one can be run again.
    store.set_property(_property(move.source), new_name)
    delete_rows(old, store, report)


def _property(source: str) -> str:
    return f"lookalike.moved.{hashlib.blake2b(source.encode(), digest_size=8).hexdigest()}"
