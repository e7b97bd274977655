"""Moving a collection to another encoder while searches go on: build beside it, verify, move the name.

What is built is told from what is live by the same plan that compares a catalogue with its collection, so that a
reindex that was killed is continued, and what changes meanwhile is followed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ingest.inventory import Inventory
from ingest.limits import Share
from ingest.model import Engine, Model
from ingest.pipeline import Pace, Target, ingest
from ingest.plan import Known
from ingest.report import Report
from schema.collection import require_same_encoder
from schema.errors import HeldBack
from schema.filters import any_of
from schema.product import ProductImage
from schema.store import Store
from schema.versions import Versions

_SAMPLE = 32
_SELF_MATCH = 0.999
_PASSES = 20
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Moved:
    """From which version to which a collection was moved; the same when nothing was to be done."""

    before: str
    after: str


def reindex(versions: Versions, live: Store, engine: Engine, report: Report, limits: tuple[Pace, Share]) -> Moved:
    """Fill the next version from the pictures of the live one, and make it the live one.

    Pictures that cannot be read any more would be missing: past the limit (the second of `limits`) it raises HeldBack,
    and what was built is kept for the next try.
    """
    pace, missing = limits
    if not live.fingerprint.differences(engine.encoder.fingerprint):
        return Moved(live.version, live.version)
    with _target(versions, engine) as target:
        model = Model(lambda: engine)
        follow = report
        for _ in range(_PASSES):
            before = Inventory(live, None).known
            if not _follow(live, target, model, follow, pace):
                break
            follow = Report(on_progress=report.on_progress)
        _verify(live, target, missing)
        versions.go_live(target.version)
        _bring_late(live, target, model, pace, before)
        return Moved(live.version, target.version)


def _target(versions: Versions, engine: Engine) -> Store:
    """The version to fill: one that an earlier try has begun, or a new one."""
    fingerprint = engine.encoder.fingerprint
    after_live = [v for v in versions.all() if v.number > versions.live.number]
    begun = [v.name for v in after_live if not v.fingerprint.differences(fingerprint)]
    target = versions.open(begun[-1] if begun else versions.make(fingerprint))
    require_same_encoder(target.version, target.fingerprint, fingerprint)
    return target


def _follow(live: Store, target: Store, model: Model, report: Report, pace: Pace) -> bool:
    """Bring what differs into the target; tell whether anything did."""
    plan = ingest(_pictures(live), None, model, Target(target, report), pace)
    gone = plan.removed()
    target.delete(gone)
    summary = report.summary()
    return bool(summary.new + summary.changed + summary.metadata + len(gone))


def _pictures(live: Store, where: str = "") -> Iterator[ProductImage]:
    for row in live.rows(where=where, fields=["source", "product_id", "image", "metadata"]):
        yield ProductImage(row["image_id"], row["source"], row["product_id"], row["image"], row["metadata"])


def _verify(live: Store, target: Store, most: Share) -> None:
    """Raise HeldBack unless the target has a row for each live one, and finds its own pictures."""
    there, here = live.count(), target.count()
    if there - here > most.of(there):
        raise HeldBack(
            f"{there - here} of {there} pictures cannot be read any more and would be missing, more than "
            f"--max-rejected {most.text}. Searches go on as before, and what was built is kept ({target.version}): "
            "bring the pictures back, or ingest with --prune --prune-unreadable, or raise the limit; then run it again"
        )
    sample = target.fetch(where='image_id != ""', fields=["embedding"], limit=_SAMPLE, consistency="Strong")
    vectors = [np.asarray(row["embedding"], dtype=np.float32) for row in sample]
    answers = target.search_many(vectors, 1) if vectors else []
    lost = [row for row, hits in zip(sample, answers, strict=True) if not hits or hits[0]["score"] < _SELF_MATCH]
    if lost:
        raise HeldBack(
            f"{len(lost)} of {len(sample)} pictures of {target.version} do not find themselves; searches go on as "
            "before. Run it again; if it stays so, drop that version (lookalike versions --drop) and begin anew"
        )


def _bring_late(live: Store, target: Store, model: Model, pace: Pace, before: dict[str, Known]) -> None:
    """Bring what was written to the version that was live between the last look at it and the move."""
    after = Inventory(live, None).known
    written = [image_id for image_id, known in after.items() if before.get(image_id) != known]
    for chunk in _chunks(written):
        ingest(_pictures(live, any_of("image_id", chunk)), None, model, Target(target, Report()), pace)
    for chunk in _chunks([image_id for image_id in before if image_id not in after]):
        target.delete(chunk)


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))
