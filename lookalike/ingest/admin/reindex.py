"""Move a collection to another encoder while searches go on: build the next version, verify it, move the alias.

The versions are compared by the same Diff that compares a source with its collection. So a reindex that was killed
continues where it stopped, and changes made to the live version meanwhile are copied.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from lookalike.encode.engine import Content
from lookalike.encode.pixel_budget import PixelBudget
from lookalike.ingest.job import ingest_images
from lookalike.ingest.pipeline.concurrency import in_parallel
from lookalike.ingest.pipeline.diff import ExistingImage
from lookalike.ingest.pipeline.diff_source import count_changes
from lookalike.ingest.pipeline.existing_rows import ExistingRows, RowScope
from lookalike.ingest.pipeline.stages import PipelineContext
from lookalike.ingest.reports.report import Rejection, Report
from lookalike.ingest.threshold import Threshold
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.collection import Fingerprint
from lookalike.schema.errors import BadImage, LimitExceeded
from lookalike.schema.milvus.reader import Row
from lookalike.schema.milvus.store import Store
from lookalike.schema.milvus.versions import Version, Versions
from lookalike.schema.product import FileState, ProductImage

_SAMPLE_SIZE = 32
"""Images of the new version that are searched for themselves."""

_MIN_SELF_SCORE = 0.999
"""Cosine of an image to itself, as the index returns it."""

_MAX_PASSES = 20
"""After so many, copying stops even if the live version still changes; the last changes are copied after the move."""

_ALL_ROWS = RowScope(None)
_FIELDS = ("source", "product_id", "image", "metadata")


@dataclass(frozen=True, slots=True)
class ReindexResult:
    """The live version before and after; the same when the collection has that encoder already.

    `stored` images were encoded, `rejected` ones can no longer be read. In a dry run they would be, and a version that
    does not exist yet is named without its random suffix.
    """

    before: str
    after: str
    stored: int = 0
    rejected: int = 0


def reindex(versions: Versions, context: PipelineContext, report: Report, max_missing: Threshold) -> ReindexResult:
    """Fill the next version from the images of the live one, then make it the live one.

    Images that can no longer be read would be missing from it. Raises LimitExceeded when they are more than
    `max_missing`, or when the new version does not find its own images. What was built stays for the next try.
    """
    current, fingerprint = versions.live, context.engine.engine.fingerprint
    if not current.fingerprint.list_differences(fingerprint):
        return ReindexResult(current.name, current.name)
    with versions.open(current.name) as live, _choose_target(versions, current, fingerprint) as target:
        pass_report = report
        for _ in range(_MAX_PASSES):
            copied = ExistingRows(live, _ALL_ROWS).by_id
            if not _copy_changes(live, target, pass_report, context):
                break
            # Only the first pass counts: its report is the caller's.
            pass_report = Report(on_progress=report.on_progress)
        _verify(live, target, max_missing)
        context.cancel.check()
        versions.make_live(target.version)
        # Searches use the new version from here on, so the last changes are copied even when the run is cancelled.
        _copy_late_changes(live, target, replace(context, cancel=CancelToken()), copied)
        return ReindexResult(live.version, target.version, report.stored, report.rejected)


def dry_run(versions: Versions, context: PipelineContext, report: Report, max_missing: Threshold) -> ReindexResult:
    """Report what `reindex` would do: every image to encode is read and decoded, none is encoded, nothing is written.

    Raises LimitExceeded when more images than `max_missing` would be missing.
    """
    current, fingerprint = versions.live, context.engine.engine.fingerprint
    if not current.fingerprint.list_differences(fingerprint):
        return ReindexResult(current.name, current.name)
    begun = _find_begun(versions, current, fingerprint)
    existing: dict[str, ExistingImage] = {}
    if begun is not None:
        with versions.open(begun) as target:
            existing = ExistingRows(target, _ALL_ROWS).by_id
    with versions.open(current.name) as live:
        checked = _check_images(_list_images(live.rows(fields=_FIELDS)), existing, context)
        diff = count_changes(checked, existing, report, context.read, context.cancel)
        live_count = live.count()
    remaining = len(existing) - len(diff.removed()) + report.summary().new
    _check_missing(live_count - remaining, live_count, max_missing, "Nothing was changed")
    after = begun or f"{versions.collection}__v{versions.next_number()}"
    return ReindexResult(current.name, after, report.stored, report.rejected)


def _find_begun(versions: Versions, live: Version, fingerprint: Fingerprint) -> str | None:
    """Return the version that an earlier try began to fill."""
    newer = [version for version in versions.all() if version.number > live.number]
    begun = [version.name for version in newer if not version.fingerprint.list_differences(fingerprint)]
    return begun[-1] if begun else None


def _choose_target(versions: Versions, live: Version, fingerprint: Fingerprint) -> Store:
    """Open the version to fill: the one that an earlier try began, or a new one."""
    return versions.open(_find_begun(versions, live, fingerprint) or versions.make(fingerprint))


def _check_images(
    images: Iterable[ProductImage], existing: Mapping[str, ExistingImage], context: PipelineContext
) -> Iterator[ProductImage | Rejection]:
    """Read and decode the images that have no row yet; one that cannot be read becomes a Rejection."""
    limits, budget = context.limits, PixelBudget(context.limits.max_pixels)

    def check(image: ProductImage) -> ProductImage | Rejection:
        if image.image_id in existing:
            return image
        try:
            # Without a known file there is always content.
            content, _ = cast("tuple[Content, FileState]", context.read(image.image, None))
            context.engine.prepare(content, budget)
        except BadImage as error:
            return Rejection.of(image, error)
        return image

    return in_parallel(check, images, workers=limits.workers, ahead=limits.loaded_ahead, name="check")


def _copy_changes(live: Store, target: Store, report: Report, context: PipelineContext) -> bool:
    """Make the target equal to the live version; return whether anything differed."""
    diff = ingest_images(_list_images(live.rows(fields=_FIELDS)), _ALL_ROWS, target, report, context)
    removed = diff.removed()
    target.delete(removed)
    summary = report.summary()
    return bool(summary.new + summary.changed + summary.metadata + len(removed))


def _list_images(rows: Iterable[Row]) -> Iterator[ProductImage]:
    for row in rows:
        yield ProductImage(row["image_id"], row["source"], row["product_id"], row["image"], row["metadata"])


def _verify(live: Store, target: Store, max_missing: Threshold) -> None:
    """Raise LimitExceeded unless the target has a row for each live one, and finds its own images."""
    live_count = live.count()
    state = f"Searches use the old version; what was built stays ({target.version})"
    _check_missing(live_count - target.count(), live_count, max_missing, state)
    sample = target.fetch(where='image_id != ""', fields=["embedding"], limit=_SAMPLE_SIZE, consistency="Strong")
    vectors = [np.asarray(row["embedding"], dtype=np.float32) for row in sample]
    results = target.search_many(vectors, 1) if vectors else []
    lost = [row for row, hits in zip(sample, results, strict=True) if not hits or hits[0]["score"] < _MIN_SELF_SCORE]
    if lost:
        raise LimitExceeded(
            f"{len(lost)} of {len(sample)} images of {target.version} are not found by their own vector. Searches use "
            f"the old version. Run it again; if it fails again, run lookalike versions --drop {target.version} first"
        )


def _check_missing(missing: int, live_count: int, max_missing: Threshold, state: str) -> None:
    """Raise LimitExceeded when too many images would be missing; `state` says what was done so far."""
    if missing > max_missing.of(live_count):
        raise LimitExceeded(
            f"{missing} of {live_count} images cannot be read any more and would be missing, more than "
            f"--max-rejected {max_missing.text}. {state}. Restore the images, or run ingest with --prune "
            "--prune-unreadable, or raise the limit; then run it again"
        )


def _copy_late_changes(live: Store, target: Store, context: PipelineContext, copied: dict[str, ExistingImage]) -> None:
    """Copy what was written to the old version between the last pass and the move of the alias.

    `copied` are the rows that the last pass copied.
    """
    current = ExistingRows(live, _ALL_ROWS).by_id
    written = [image_id for image_id, row in current.items() if copied.get(image_id) != row]
    if written:
        rows = live.get(written, _FIELDS, consistency="Strong")
        ingest_images(_list_images(rows), _ALL_ROWS, target, Report(), context)
    target.delete([image_id for image_id in copied if image_id not in current])
