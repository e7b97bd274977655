"""Removing the rows of what the source has no more."""

from dataclasses import dataclass

from lookalike.ingest.pipeline.diff import Diff
from lookalike.ingest.reports.report import Report
from lookalike.ingest.threshold import Threshold
from lookalike.schema.errors import LimitExceeded
from lookalike.schema.milvus.store import Store

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How much may be removed; `unreadable` says that rows go as well whose image cannot be read any more."""

    most: Threshold
    unreadable: bool = False


def prune(plan: Diff, store: Store, report: Report, pruning: PruneOptions) -> None:
    """Remove the rows of the source that it has no more, after the whole source was met.

    Raises LimitExceeded, with nothing removed, when there are more than `pruning.most` or when part of the source could not
    be read: an empty mount must not empty the shop.
    """
    gone = to_prune(plan, pruning)
    for start in range(0, len(gone), _CHUNK):
        chunk = gone[start : start + _CHUNK]
        store.delete(chunk)
        report.record_removed(plan.known[image_id] for image_id in chunk)
    store.flush_after(len(gone))


def to_prune(plan: Diff, pruning: PruneOptions) -> list[str]:
    """List the keys of the rows to remove. Raises LimitExceeded."""
    gone = plan.removed() + (plan.unreadable() if pruning.unreadable else [])
    if gone and not plan.complete:
        raise LimitExceeded(
            f"{len(gone)} rows have no image in the source, but part of the source could not be read (see what was "
            "rejected). Nothing was removed; what could be read is stored. Mend the source and run it again"
        )
    if len(gone) > pruning.most.of(len(plan.known)):
        raise LimitExceeded(
            f"--prune would remove {len(gone)} of the {len(plan.known)} rows of this source, more than --max-removals "
            f"{pruning.most.text}. Nothing was removed. Is the source whole, and mounted? "
            f"If it is meant: --max-removals {len(gone)}"
        )
    return gone
