"""A collection behind a running service: the methods of Collection that HTTP can do."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from lookalike.api.inputs import checks
from lookalike.api.inputs.filters import Where, read_filter
from lookalike.api.inputs.images import ImageLoader
from lookalike.api.inputs.queries import Images, PartReader, Parts
from lookalike.api.results.records import Product
from lookalike.api.results.result import Result
from lookalike.ingest.admin.deletion import DeleteResult
from lookalike.schema.errors import BadImage, BadQuery, LookalikeError, StoreUnavailable, UnknownProduct
from lookalike.schema.filters.json import filter_to_json
from lookalike.schema.product import Hit, HitImage, ProductImage
from lookalike.search.query import Part
from lookalike.serve.client import Client, ServiceError

_ERRORS: Mapping[int, type[LookalikeError]] = {404: UnknownProduct, 422: BadQuery, 503: StoreUnavailable}

_ONLY_WITH_MILVUS = frozenset({"ingest", "info", "reindex", "export", "sources", "rename_source", "remove_source"})


class ServiceCollection:
    """A collection that a service serves; made by `lookalike.connect(service=…)`, closed by `close` or `with`.

    `search`, `get` and `delete` work as those of Collection do, and raise the same errors. Images are read here and
    sent as bytes, so a URL is fetched by this process. `Hit.image` is the address of the image at the service. What
    needs Milvus itself (`ingest`, `info`, `reindex`, `export`, its sources) is not here. Raises ServiceUnreachable
    without a service.
    """

    def __init__(self, address: str, client: Client, loader: ImageLoader) -> None:
        self._address = address.rstrip("/")
        self._client = client
        self._loader = loader

    def __repr__(self) -> str:
        return f"ServiceCollection({self._address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    if not TYPE_CHECKING:  # a type checker would take any name for a method

        def __getattr__(self, name: str) -> object:
            if name in _ONLY_WITH_MILVUS:
                raise AttributeError(
                    f"a service cannot {name}; connect to its Milvus: lookalike.connect(uri).{name}(…)"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

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
        """Find the products most like an image, a text, a product, or a mix of them: see Collection.search."""
        reader = PartReader(self._loader)
        options = {"within": within, "min_score": min_score, "fields": fields}
        request = {
            "like": [_part(part) for part in (*reader.read_main(image, text, product), *reader.read("like", like))],
            "unlike": [_part(part) for part in reader.read("unlike", unlike)],
            "where": filter_to_json(read_filter(where)),
            "limit": checks.check_integer("limit", limit),
            "offset": checks.check_integer("offset", offset),
            "per_product": checks.check_integer("per_product", per_product),
            **{name: value for name, value in options.items() if value is not None},
        }
        with _local_errors():
            found = self._client.search(**request)  # type: ignore[arg-type]  # as SearchRequest describes it
        hits = [self._hit(hit) for hit in found.hits]
        return Result(hits, found.took_ms, found.next_offset, self._load)

    def get(self, product_id: str) -> Product:
        """Read a product: its metadata and its images. Raises UnknownProduct."""
        with _local_errors():
            found = self._client.get_product(checks.check_text("product_id", product_id))
        images = sorted(found.images, key=lambda image: image.image_id)
        return Product(
            found.product_id,
            found.metadata,
            tuple(
                ProductImage(image.image_id, image.source, product_id, self._address + image.url, image.metadata)
                for image in images
            ),
        )

    def delete(self, products: str | Sequence[str], *, dry_run: bool = False) -> DeleteResult:
        """Delete products by id. Raises UnknownProduct, with nothing deleted. `dry_run` only counts."""
        product_ids = list(dict.fromkeys(checks.check_texts("products", products)))
        if dry_run:
            with _local_errors():
                plans = [self._client.delete_product(product_id, dry_run=True) for product_id in product_ids]
            return DeleteResult(sum(plan.removed for plan in plans if plan is not None), len(plans))
        found = [self.get(product_id) for product_id in product_ids]
        with _local_errors():
            for product in found:
                self._client.delete_product(product.product_id)
        return DeleteResult(sum(len(product.images) for product in found), len(found))

    def _hit(self, hit: Any) -> Hit:
        images = tuple(HitImage(image.image_id, image.score, self._address + image.url) for image in hit.images)
        return Hit(hit.product_id, hit.score, hit.image_id, self._address + hit.url, hit.metadata, images)

    def _load(self, url: str) -> bytes:
        """Read an image that a result names, by the service."""
        try:
            return self._client.get_image(url.removeprefix(f"{self._address}/images/"))
        except ServiceError as error:
            raise BadImage(f"{url} could not be read: {error}") from error


def _part(part: Part) -> dict[str, Any]:
    names = ("image", "text", "product_id", "image_id", "vector", "weight")
    values = {name: getattr(part, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def _local_errors() -> Iterator[None]:
    """Raise what a Collection would raise; other answers of the service stay ServiceError."""
    try:
        yield
    except ServiceError as error:
        if error.problem.status in _ERRORS:
            raise _ERRORS[error.problem.status](str(error)) from error
        raise
