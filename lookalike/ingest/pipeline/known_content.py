"""Whether a new source brings images that the collection has already, as those of another source."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from lookalike.ingest.reports.report import Rejection
from lookalike.ingest.sources.files import is_remote, read_file
from lookalike.schema.collection import describe_misfit
from lookalike.schema.errors import BadImage, DuplicateSource
from lookalike.schema.filters.expression import column_in
from lookalike.schema.milvus.store import Store
from lookalike.schema.product import FileState, ProductImage

_SAMPLE_SIZE = 32
"""Images that are compared: so many are read, so that a large source is not read twice."""

_MAX_LISTED = 1_000
"""Items of the source that are listed to find them."""


def refuse_known_content(
    images: Iterator[ProductImage | Rejection], source: str, store: Store
) -> Iterator[ProductImage | Rejection]:
    """Return the images of a source, unless it is new and half of its first images are those of another source.

    An image is the same if its path or URI is, or if its bytes are; remote images are not fetched. Raises
    DuplicateSource.
    """
    if has_source(store, source):
        return images
    listed, sample = _take_sample(images)
    for other, contents in _find_owners(store, sample).items():
        # Distinct ones: one placeholder image in two catalogues does not make them the same.
        if 2 * len(set(contents)) >= len(sample):
            raise DuplicateSource(_describe_copies(len(contents), len(sample), source, other, store.name))
    return chain(listed, images)


def has_source(store: Store, source: str) -> bool:
    """Return whether the collection has rows of a source."""
    return bool(store.fetch(where=column_in("source", [source]), fields=["source"], limit=1, consistency="Strong"))


def _take_sample(
    images: Iterator[ProductImage | Rejection],
) -> tuple[list[ProductImage | Rejection], dict[str, str | None]]:
    """Take items from `images`; return them, and those that can be used: path → hash, None for a remote one."""
    listed: list[ProductImage | Rejection] = []
    sample: dict[str, str | None] = {}
    for item in islice(images, _MAX_LISTED):
        listed.append(item)
        if isinstance(item, ProductImage) and not describe_misfit({"image": item.image}, {}):
            try:
                sample[item.image] = None if is_remote(item.image) else _hash_file(item.image)
            except (OSError, BadImage):
                continue
            if len(sample) == _SAMPLE_SIZE:
                break
    return listed, sample


def _hash_file(path: str) -> str:
    content, stamp = read_file(path)
    return FileState.of(content, stamp.mtime).hash


def _find_owners(store: Store, sample: dict[str, str | None]) -> dict[str, list[str]]:
    """Return for each source in the collection what it has of the sample, an item for each image, most first."""
    by_path = _find_sources(store, "image", sample)
    by_hash = _find_sources(store, "image_hash", {image_hash for image_hash in sample.values() if image_hash})
    owned: dict[str, list[str]] = defaultdict(list)
    for path, image_hash in sample.items():
        for source in by_path[path] | by_hash[image_hash or ""]:
            owned[source].append(image_hash or path)
    return dict(sorted(owned.items(), key=lambda item: (-len(item[1]), item[0])))


def _find_sources(store: Store, column: str, values: Iterable[str]) -> dict[str, set[str]]:
    """Return for each value of a column the sources whose rows have it."""
    sources: dict[str, set[str]] = defaultdict(set)
    if values:
        for row in store.rows(where=column_in(column, values), fields=["source", column]):
            sources[row[column]].add(row["source"])
    return sources


def _describe_copies(copies: int, sampled: int, source: str, other: str, collection: str) -> str:
    new, old = shlex.quote(source), shlex.quote(other)
    return (
        f"{copies} of the first {sampled} images of {source!r} are in {collection!r} already, as source {other!r}. "
        f"Nothing was written. If the source has moved: --move-source {old}. "
        f"If it is the same source under another name: --source-name {old}. "
        f"To store the copies as a source of their own: --source-name {new}"
    )
