"""A collection of products: ingest, search, read and administer it from Python."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from lookalike.api.inputs import checks
from lookalike.api.inputs.filters import Where, read_filter
from lookalike.api.inputs.images import ImageLoader
from lookalike.api.inputs.queries import Images, PartReader, Parts
from lookalike.api.parameter_names import name_parameters
from lookalike.api.results.records import Info, Product, read_info, read_product
from lookalike.api.results.result import Result
from lookalike.api.runs import RunOptions, SourceOptions, run_ingest, run_reindex
from lookalike.api.session import Session
from lookalike.ingest.admin.deletion import (
    DeleteResult,
    build_delete_filter,
    delete_images,
    find_images,
    require_products,
)
from lookalike.ingest.admin.export import export_collection
from lookalike.ingest.admin.reindex import ReindexResult
from lookalike.ingest.admin.sources import Source, list_sources, remove_source, rename_source
from lookalike.ingest.reports.report import Summary
from lookalike.schema.errors import BadSettings
from lookalike.schema.numbers import ValueFormat
from lookalike.search.query import Query

OnProgress = Callable[[int], object]


class Collection:
    """A collection in Milvus Lite or on a Milvus server: returned by `lookalike.connect`, closed by `close` or `with`.

    Several threads may search it at once. All methods raise LookalikeError: BadSettings for a collection that does not
    exist, StoreUnavailable when Milvus cannot be reached, BadQuery for an invalid argument.
    """

    def __init__(self, session: Session, loader: ImageLoader) -> None:
        self._session = session
        self._loader = loader

    def __repr__(self) -> str:
        return f"Collection({self._session.address.collection!r} at {self._session.address.uri!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a second call does nothing, any other raises BadQuery.

        >>> shop.close()
        >>> shop.close()
        """
        self._session.close()

    def ingest(
        self,
        source: str | os.PathLike[str],
        *,
        layout: str | None = None,
        source_name: str | None = None,
        fields: Mapping[str, str] | None = None,
        columns: Mapping[str, str] | None = None,
        decimal_comma: bool = False,
        thousands: bool = False,
        strip_currency: bool = False,
        null_values: Sequence[str] = (),
        move_source: str | None = None,
        prune: bool = False,
        max_removals: int | str = "20%",
        max_rejected: int | str | None = None,
        dry_run: bool = False,
        report: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Summary:
        """Make the collection equal to a source: a folder of images, or a manifest (.csv, .jsonl, .parquet).

        The options are those of `lookalike ingest`. `layout` says what the path of an image means, `fields` gives the
        types of metadata fields (text, int, float, bool, list), `source_name` names the source that owns the rows.
        `columns` reads columns of a manifest under other names, such as `{"product_id": "sku", "image": "photo"}`.
        `decimal_comma` reads 12,5 as a number, `thousands` 1,299.00, `strip_currency` € 12.50. A product with one of
        the texts `null_values` in a column does not have the column.
        `move_source` names the source that this one was before it moved: its rows are deleted at the end, unless more
        than `max_removals` have no counterpart. `prune` deletes the rows that the source no longer has, unless they are
        more than `max_removals`. `report` is a JSONL file with a line for each change and each rejected image.
        `on_progress` is called with the number of images done. A run can be interrupted at any time; the next one does
        the rest.

        Raises DuplicateSource for a new source with the images of another one, BadSource, EncoderMismatch,
        EncoderUnavailable, LimitExceeded for `max_removals` or `max_rejected`, and AlreadyRunning when another run
        writes the same rows.

        >>> summary = shop.ingest("shop/photos", layout="{category}/{product_id}/{image}")
        >>> summary.stored, summary.unchanged
        (0, 192)
        """
        self._session.check_open()
        nulls = frozenset(text.strip() for text in checks.check_texts("null_values", null_values))
        values = ValueFormat(
            checks.check_flag("decimal_comma", decimal_comma),
            checks.check_flag("thousands", thousands),
            checks.check_flag("strip_currency", strip_currency),
            nulls,
        )
        read_options = SourceOptions(
            checks.check_path("source", source), layout, source_name, fields or {}, values, columns or {}
        )
        options = RunOptions(
            self._loader.allow_private_urls,
            checks.check_flag("prune", prune),
            None if move_source is None else checks.check_text("move_source", move_source),
            max_removals,
            max_rejected,
            None if report is None else Path(checks.check_path("report", report)),
            on_progress,
        )
        return run_ingest(self._session, read_options, options, is_dry=checks.check_flag("dry_run", dry_run))

    def search(
        self,
        image: Images | None = None,
        *,
        text: str | None = None,
        product: str | None = None,
        like: Parts | None = None,
        unlike: Parts | None = None,
        where: Where | Sequence[Where] | None = None,
        limit: int = 10,
        offset: int = 0,
        within: float | None = None,
        min_score: float | None = None,
        per_product: int = 1,
        fields: Sequence[str] | None = None,
    ) -> Result:
        """Find the products most like an image, a text, a product, or a mix of them.

        `image` is a path, an http(s): or data: URL, the bytes of an image file, a PIL image, or a numpy array of uint8
        and shape (H, W, 3) or (H, W); or a list of these, which makes one query of several images. `like` and `unlike`
        take product ids, and dicts with one of image, text, product_id, image_id and vector, and a weight. `where` is a
        filter as text or as a dict; in a list of filters all have to hold. `within` leaves out products that score more
        than it below the best one, `min_score` those with a lower cosine. `per_product` is how many images of a product
        to return, `fields` which metadata fields (all by default).

        Raises BadImage, BadQuery, BadFilter, and UnknownProduct.

        >>> lamps_and_mugs = {"category": {"in": ["lamp", "mug"]}}
        >>> result = shop.search("shop/queries/teal-plain-lamp.jpg", where=lamps_and_mugs, limit=2)
        >>> [hit.product_id for hit in result]
        ['teal-plain-lamp', 'black-checked-lamp']
        """
        reader = PartReader(self._loader)
        query = Query(
            like=(*reader.read_main(image, text, product), *reader.read("like", like)),
            unlike=tuple(reader.read("unlike", unlike)),
            where=read_filter(where),
            limit=checks.check_integer("limit", limit),
            offset=checks.check_integer("offset", offset),
            within=None if within is None else checks.check_number("within", within),
            min_score=None if min_score is None else checks.check_number("min_score", min_score),
            per_product=checks.check_integer("per_product", per_product),
            fields=None if fields is None else checks.check_texts("fields", fields),
        )
        found = self._session.finder().find(query)
        return Result(found.hits, found.took_ms, found.next_offset, self._loader.load)

    def get(self, product_id: str) -> Product:
        """Read a product: its metadata and its images. Raises UnknownProduct.

        >>> product = shop.get("red-plain-mug")
        >>> product.metadata, len(product.images)
        ({'category': 'mug'}, 3)
        """
        return read_product(self._session.finder().store, checks.check_text("product_id", product_id))

    def delete(
        self,
        products: str | Sequence[str] = (),
        *,
        where: Where | Sequence[Where] | None = None,
        dry_run: bool = False,
    ) -> DeleteResult:
        """Delete products by id, by a filter, or those of the ids that match the filter.

        A product that its source still has comes back with the next `ingest`. `dry_run` only counts. Raises BadSettings
        without ids and without a filter.

        >>> shop.delete("red-plain-mug")
        DeleteResult(images=3, products=1)
        >>> shop.delete(where="category = mug", dry_run=True).images
        21
        """
        is_dry = checks.check_flag("dry_run", dry_run)
        product_ids, conditions = checks.check_texts("products", products), read_filter(where)
        if not product_ids and not conditions:
            raise BadSettings("nothing to delete: pass product ids, or a filter as where")
        chosen = build_delete_filter(product_ids, conditions)
        store = self._session.finder().store
        require_products(store, product_ids)
        rows = find_images(store, chosen)
        if rows and not is_dry:
            delete_images(store, list(rows))
            self._session.see_writes()
        return DeleteResult(len(rows), len(set(rows.values())))

    def info(self) -> Info:
        """Count what the collection holds: images, products, metadata fields, sources.

        >>> info = shop.info()
        >>> info.encoder, info.images, info.products
        ('pixels', 192, 64)
        """
        return read_info(self._session.finder().store)

    def sources(self) -> list[Source]:
        """List the sources that own the rows, with the number of their images and products.

        >>> [(source.images, source.products) for source in shop.sources()]
        [(192, 64)]
        """
        return list_sources(self._session.finder().store)

    def rename_source(self, old: str, new: str, *, dry_run: bool = False) -> Source:
        """Give a source another name, under which the next `ingest` finds its rows unchanged; return the source.

        Raises BadSettings without such a source, and for a name that another one has; AlreadyRunning during a run.
        """
        store = self._session.finder().store
        with name_parameters():
            renamed = rename_source(
                store,
                checks.check_text("old", old),
                checks.check_text("new", new),
                dry_run=checks.check_flag("dry_run", dry_run),
            )
        self._session.see_writes()
        return renamed

    def remove_source(self, source: str, *, dry_run: bool = False) -> DeleteResult:
        """Delete all rows of a source; return how many. Raises BadSettings without such a source, AlreadyRunning."""
        is_dry = checks.check_flag("dry_run", dry_run)
        removed = remove_source(self._session.finder().store, checks.check_text("source", source), dry_run=is_dry)
        self._session.see_writes()
        return removed

    def reindex(
        self,
        encoder: str,
        *,
        max_rejected: int | str = 0,
        dry_run: bool = False,
        report: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> ReindexResult:
        """Move the collection to another encoder, by encoding its images again, while searches go on.

        The old version stays for `lookalike rollback`. Raises LimitExceeded, and moves nothing, when more than
        `max_rejected` images can no longer be read. `dry_run` only reads the images, and counts.

        >>> shop.reindex("efficientnet-lite0", dry_run=True).stored
        192
        >>> result = shop.reindex("efficientnet-lite0")
        >>> result.before != result.after
        True
        >>> shop.info().encoder
        'efficientnet-lite0'
        """
        self._session.check_open()
        options = RunOptions(
            self._loader.allow_private_urls,
            max_rejected=max_rejected,
            report=None if report is None else Path(checks.check_path("report", report)),
            on_progress=on_progress,
        )
        is_dry = checks.check_flag("dry_run", dry_run)
        return run_reindex(self._session, checks.check_text("encoder", encoder), options, is_dry=is_dry)

    def export(self, file: str | os.PathLike[str]) -> int:
        """Write the collection to a file; return the number of rows. Raises BadSettings for another suffix than these.

        A .parquet file has the embeddings, and `lookalike import` reads it; .csv and .jsonl have all but these.

        >>> shop.export("shop.parquet")
        192
        """
        return export_collection(self._session.finder().store, Path(checks.check_path("file", file)))
