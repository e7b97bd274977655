"""Deleting the rows whose image the source no longer has."""

from collections.abc import Mapping

from lookalike.ingest.pipeline.diff import Diff, ExistingImage
from lookalike.ingest.reports.report import Report
from lookalike.ingest.threshold import PruneOptions
from lookalike.schema.errors import LimitExceeded
from lookalike.schema.milvus.store import Store

_CHUNK = 500


def prune(diff: Diff, store: Store, report: Report, options: PruneOptions) -> None:
    """Delete the rows of the source that it no longer has; call it after the whole source was ingested.

    Raises LimitExceeded, with nothing deleted, when there are more than `max_removals` or when part of the source could
    not be read: an empty mount must not empty the shop.
    """
    delete_rows({image_id: diff.existing[image_id] for image_id in list_removals(diff, options)}, store, report)


def delete_rows(rows: Mapping[str, ExistingImage], store: Store, report: Report) -> None:
    """Delete rows by key, and report them."""
    image_ids = list(rows)
    for start in range(0, len(image_ids), _CHUNK):
        chunk = image_ids[start : start + _CHUNK]
        store.delete(chunk)
        report.record_removed(rows[image_id] for image_id in chunk)
    store.flush_after(len(image_ids))


def list_removals(diff: Diff, options: PruneOptions) -> list[str]:
    """Return the keys of the rows to delete. Raises LimitExceeded."""
    image_ids = diff.removed() + (diff.unreadable() if options.unreadable else [])
    if image_ids and not diff.is_complete:
        raise LimitExceeded(
            f"{len(image_ids)} rows have no image in the source, but part of the source could not be read: see what "
            "was rejected. Nothing was removed; what could be read is stored. Repair the source and run it again"
        )
    if len(image_ids) > options.max_removals.of(len(diff.existing)):
        raise LimitExceeded(
            f"--prune would remove {len(image_ids)} of the {len(diff.existing)} rows of this source, more than "
            f"--max-removals {options.max_removals.text}. Nothing was removed. Is the source complete, and mounted? "
            f"If you mean it, add --max-removals {len(image_ids)}"
        )
    return image_ids
