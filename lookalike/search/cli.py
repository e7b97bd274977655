"""`lookalike search`, `lookalike info` and `lookalike duplicates`."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lookalike.encode.options import check_encoder_option
from lookalike.schema.errors import BadQuery
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.output import escape_controls, format_option, print_table
from lookalike.schema.settings import complete_files, encoder_options, setting_option, store_options
from lookalike.search.command.query_images import read_images
from lookalike.search.command.results import print_groups, print_result
from lookalike.search.command.sheet import check_sheet, draw_duplicates, draw_result
from lookalike.search.options import CollectionOptions
from lookalike.search.query import Part, Query

if TYPE_CHECKING:
    from lookalike.encode.backends.select import EngineName
    from lookalike.encode.encoder import Encoder
    from lookalike.search.finder import SearchResult


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions(CollectionOptions):
    """The options of `lookalike search`, as on the command line."""

    images: tuple[str, ...]
    text: str | None
    product: tuple[str, ...]
    unlike: tuple[str, ...]
    where: tuple[str, ...]
    limit: int
    offset: int
    min_score: float | None
    within: float | None
    encoder: str | None
    device: str
    dtype: str
    engine: Literal["auto", "torch", "onnx", "compile"]
    sheet: Path | None
    allow_private_urls: bool
    output: str

    def query(self) -> Query:
        """Read the images and make one query of all parts. Raises BadQuery, BadFilter."""
        return Query(
            text=self.text,
            like=(
                *read_images(self.images, allow_private=self.allow_private_urls),
                *(Part(product_id=product) for product in self.product),
            ),
            unlike=tuple(Part(product_id=product) for product in self.unlike),
            where=parse_filter(self.where),
            limit=self.limit,
            offset=self.offset,
            min_score=self.min_score,
            within=self.within,
        )

    def load_encoder(self, collection_encoder: str) -> "Encoder":
        """Load the encoder of the collection, from --encoder if that is given. Raises EncoderUnavailable."""
        from lookalike.encode.registry import load_encoder

        # Neither measuring engines nor compiling pays for a single query.
        engine: EngineName = "cached" if self.engine in ("auto", "compile") else self.engine
        return load_encoder(self.encoder or collection_encoder, device=self.device, dtype=self.dtype, engine=engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoOptions(CollectionOptions):
    """The options of `lookalike info`."""

    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesOptions(CollectionOptions):
    """The options of `lookalike duplicates`."""

    threshold: float
    within_products: bool
    sheet: Path | None
    output: str


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1, shell_complete=complete_files)
@click.option("--text", metavar="TEXT", help="Find products by a description; needs an encoder for text, such as clip.")
@click.option("--product", metavar="ID", multiple=True, help="Find products like this one, without itself. Repeatable.")
@click.option("--unlike", metavar="ID", multiple=True, help="Find products unlike this one. Repeatable.")
@click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Such as 'category = Apple', 'price < 50', or a filter in JSON. Repeatable; all have to hold.",
)
@click.option("--limit", "-k", "-n", default=10, show_default=True, help="How many products to find.")
@click.option("--offset", default=0, help="How many products to skip: for the next page, with the same --limit.")
@click.option("--min-score", type=float, help="Leave out products with a lower cosine, -1 to 1.")
@click.option("--within", type=float, help="Leave out products that score more than this below the best one.")
@store_options
@encoder_options
@setting_option(
    "--encoder", callback=check_encoder_option, help="Another name or directory of the collection's encoder."
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw the query and its hits to this image file.")
@setting_option(
    "--allow-private-urls",
    is_flag=True,
    help="Fetch IMAGE also from this machine or a private network.",
)
@format_option("table", "json", "jsonl", "csv", "ids")
def search(**values: Any) -> None:
    """Find the products most like an image, a text, a product, or a mix of them.

    IMAGE is the path of an image file, an http(s): URL, or - for standard input. Several make one query: photos of one
    thing from several sides, for example.
    """
    options = SearchOptions(**values)
    query = options.query()
    check_sheet(options.sheet)
    result = _find(query, options)
    print_result(result, options.output)
    if options.sheet is not None:
        draw_result(options.sheet, query, result.hits)


@click.command()
@store_options
@format_option("table", "json")
def info(**values: Any) -> None:
    """Show what a collection holds: its encoder, images, products and columns."""
    from lookalike.search.explore.stats import count_collection

    options = InfoOptions(**values)
    with options.open_store() as store:
        stats = count_collection(store)
        encoder = asdict(store.fingerprint)
    name, uri = options.collection, options.uri
    if options.output == "json":
        click.echo(json.dumps({"collection": name, "uri": uri, "encoder": encoder, **asdict(stats)}))
        return
    click.echo(f"{name} at {uri}: {stats.images} images of {stats.products} products")
    click.echo(f"encoder {encoder['encoder']}, {encoder['dim']}-d, {encoder['pooling']}, weights {encoder['weights']}")
    click.echo(f"  {encoder['preprocessing']}")
    for source, count in stats.sources.items():
        click.echo(f"source {escape_controls(source)}: {count} images")
    rows = [[column, kind, count] for column, kinds in stats.columns.items() for kind, count in kinds.items()]
    print_table(["column", "type", "images"], rows)


@click.command()
@click.option(
    "--threshold", default=0.98, show_default=True, type=click.FloatRange(0, 1), help="The lowest cosine of two images."
)
@click.option("--within-products", is_flag=True, help="Find copies within each product, not between products.")
@store_options
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw the first groups to this image file.")
@format_option("table", "json", "jsonl", "csv")
def duplicates(**values: Any) -> None:
    """Find images that are nearly the same in different products, or (--within-products) in the same product."""
    from lookalike.search.explore.duplicates import find_duplicates
    from lookalike.search.explore.product_copies import find_copies

    options = DuplicatesOptions(**values)
    if not math.isfinite(options.threshold):
        raise BadQuery(f"--threshold {options.threshold} is not a cosine; give a number between 0 and 1")
    check_sheet(options.sheet)
    with options.open_store() as store:
        groups = (find_copies if options.within_products else find_duplicates)(store, options.threshold)
    print_groups(groups, options.threshold, options.output)
    if options.sheet is not None:
        draw_duplicates(options.sheet, groups)


def _find(query: Query, options: SearchOptions) -> "SearchResult":
    from lookalike.search.finder import Finder

    with options.open_store() as store:
        return Finder(store, lambda: options.load_encoder(store.fingerprint.encoder)).find(query)
