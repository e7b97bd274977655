"""The first stage of ingest: which images of the source may have changed, without reading them; and the dry run."""

from collections.abc import Iterable, Iterator, Mapping

from lookalike.ingest.pipeline.diff import Change, Diff, ExistingImage
from lookalike.ingest.pipeline.existing_rows import StoredVector
from lookalike.ingest.pipeline.load import ReadChanged, Unchanged, compare_file
from lookalike.ingest.reports.report import Rejection, Report
from lookalike.ingest.sources.files import is_remote
from lookalike.schema.cancellation import CancelToken
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadImage
from lookalike.schema.product import ProductImage


def diff_source(
    images: Iterable[ProductImage | Rejection], diff: Diff, report: Report, cancel: CancelToken
) -> Iterator[ProductImage | StoredVector | Rejection]:
    """Pass on what has to be read or written: an image whose file and metadata are unchanged ends here."""
    for item in images:
        cancel.check()
        if isinstance(item, ProductImage):
            report.columns.add(item)
        compared = _compare(item, diff)
        if isinstance(compared, Unchanged):
            report.count_unchanged()
        else:
            yield compared


def _compare(item: ProductImage | Rejection, diff: Diff) -> ProductImage | StoredVector | Unchanged | Rejection:
    if isinstance(item, Rejection):
        return item
    if not diff.mark_seen(item.image_id):
        return Rejection(item.image, f"product {item.product_id!r} has this image already; the first one counts")
    try:
        compared = None if is_remote(item.image) else compare_file(item, diff)
    except BadImage as error:
        return Rejection.of(item, error)
    if isinstance(compared, Unchanged):
        return compared
    texts = {"product_id": item.product_id, "image": item.image, "source": item.source}
    problem = describe_misfit(texts, item.metadata)
    return Rejection(item.image, problem, item.image_id) if problem else compared or item


def reject(rejection: Rejection, diff: Diff, report: Report) -> None:
    """Report an image that cannot be used; its row, if there is one, stays."""
    has_row = diff.mark_rejected(rejection.image_id, incomplete=rejection.incomplete, unreadable=rejection.unreadable)
    report.reject(rejection, row_stays=has_row)


def count_changes(
    images: Iterable[ProductImage | Rejection],
    existing: Mapping[str, ExistingImage],
    report: Report,
    read: ReadChanged,
    cancel: CancelToken,
) -> Diff:
    """Count what a run would do with a source; nothing is written.

    Only the images are read whose size or mtime has changed; new ones are not opened.
    """
    report.start()
    diff = Diff(existing)
    for item in diff_source(images, diff, report, cancel):
        if isinstance(item, StoredVector):
            report.count(item.change, item.image)
        elif isinstance(item, Rejection):
            reject(item, diff, report)
        elif item.image_id not in existing:
            report.count(Change.NEW, item)
        else:
            try:
                report.count(_read_change(item, diff, read), item)
            except BadImage as error:
                reject(Rejection.of(item, error), diff, report)
    return diff


def _read_change(image: ProductImage, diff: Diff, read: ReadChanged) -> Change:
    content = read(image.image, diff.existing_file(image))
    return diff.compare_metadata(image) if content is None else diff.compare_content(image, content[1])
