"""Moving a collection to another encoder while searches go on: build beside it, verify, move the name.

What is built is told from what is live by the same plan that compares a catalogue with its collection, so that a
reindex that was killed is continued, and what changes meanwhile is followed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from lookalike.ingest.job import ingest_images
from lookalike.ingest.pipeline.diff import ExistingImage
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Report
from lookalike.ingest.threshold import Threshold
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import LimitExceeded
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Version, Versions
from lookalike.schema.product import ProductImage

_SAMPLE = 32
_SELF_MATCH = 0.999
_PASSES = 20
_ALL = RowScope(None)
_FIELDS = ("source", "product_id", "image", "metadata")


@dataclass(frozen=True, slots=True)
class ReindexResult:
    """From which version to which a collection was moved; the same when nothing was to be done."""

    before: str
    after: str


def reindex(versions: Versions, context: PipelineContext, report: Report, max_missing: Threshold) -> ReindexResult:
    """Fill the next version from the images of the live one, and make it the live one.

    Images that cannot be read any more would be missing: past `max_missing` it raises LimitExceeded, and what was built
    is kept for the next try.
    """
    current, fingerprint = versions.live, context.engine.engine.fingerprint
    if not current.fingerprint.differences(fingerprint):
        return ReindexResult(current.name, current.name)
    with versions.open(current.name) as live, _target(versions, current, fingerprint) as target:
        follow = report
        for _ in range(_PASSES):
            before = ExistingRows(live, _ALL).known
            if not _follow(live, target, follow, context):
                break
            follow = Report(on_progress=report.on_progress)
        _verify(live, target, max_missing)
        context.cancel.check()
        versions.go_live(target.version)
        # Searches see the new version now: what is late is brought to it even when the run is cancelled.
        _bring_late(live, target, replace(context, cancel=CancelToken()), before)
        return ReindexResult(live.version, target.version)


def _target(versions: Versions, live: Version, fingerprint: Fingerprint) -> Store:
    """The version to fill: one that an earlier try has begun, or a new one."""
    after_live = [version for version in versions.all() if version.number > live.number]
    begun = [version.name for version in after_live if not version.fingerprint.differences(fingerprint)]
    return versions.open(begun[-1] if begun else versions.make(fingerprint))


def _follow(live: Store, target: Store, report: Report, context: PipelineContext) -> bool:
    """Bring what differs into the target; tell whether anything did."""
    diff = ingest_images(_images(live.rows(fields=_FIELDS)), _ALL, target, report, context)
    gone = diff.removed()
    target.delete(gone)
    summary = report.summary()
    return bool(summary.new + summary.changed + summary.metadata + len(gone))


def _images(rows: Iterable[Row]) -> Iterator[ProductImage]:
    for row in rows:
        yield ProductImage(row["image_id"], row["source"], row["product_id"], row["image"], row["metadata"])


def _verify(live: Store, target: Store, most: Threshold) -> None:
    """Raise LimitExceeded unless the target has a row for each live one, and finds its own images."""
    there, here = live.count(), target.count()
    if there - here > most.of(there):
        raise LimitExceeded(
            f"{there - here} of {there} images cannot be read any more and would be missing, more than "
            f"--max-rejected {most.text}. Searches go on as before, and what was built is kept ({target.version}): "
            "bring the images back, or ingest with --prune --prune-unreadable, or raise the limit; then run it again"
        )
    sample = target.fetch(where='image_id != ""', fields=["embedding"], limit=_SAMPLE, consistency="Strong")
    vectors = [np.asarray(row["embedding"], dtype=np.float32) for row in sample]
    answers = target.search_many(vectors, 1) if vectors else []
    lost = [row for row, hits in zip(sample, answers, strict=True) if not hits or hits[0]["score"] < _SELF_MATCH]
    if lost:
        raise LimitExceeded(
            f"{len(lost)} of {len(sample)} images of {target.version} do not find themselves; searches go on as "
            "before. Run it again; if it stays so, drop that version (lookalike versions --drop) and begin anew"
        )


def _bring_late(live: Store, target: Store, context: PipelineContext, before: dict[str, ExistingImage]) -> None:
    """Bring what was written to the version that was live between the last look at it and the move."""
    after = ExistingRows(live, _ALL).known
    written = [image_id for image_id, known in after.items() if before.get(image_id) != known]
    if written:
        rows = live.get(written, _FIELDS, consistency="Strong")
        ingest_images(_images(rows), _ALL, target, Report(), context)
    target.delete([image_id for image_id in before if image_id not in after])
