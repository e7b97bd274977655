"""`lookalike search`, `lookalike info` and `lookalike duplicates`."""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import click

from lookalike.encode.decode import MAX_BYTES
from lookalike.schema.errors import BadQuery, BadSettings
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.output import escape_controls, format_option, print_table
from lookalike.schema.settings import complete_files, encoder_options, setting_option, store_options
from lookalike.search.options import CollectionOptions
from lookalike.search.query import Part, Query

_MAX_DRAWN_GROUPS = 20

if TYPE_CHECKING:
    from PIL import Image

    from lookalike.encode.backends.select import EngineName
    from lookalike.encode.encoder import Encoder
    from lookalike.schema.product import Hit
    from lookalike.search.explore.duplicates import Group
    from lookalike.search.finder import SearchResult


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions(CollectionOptions):
    """The options of `lookalike search`, as on the command line."""

    image: str | None
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
        """Make the query. Raises BadQuery, BadFilter."""
        return Query(
            image=None if self.image is None else _read_image(self.image, allow_private=self.allow_private_urls),
            text=self.text,
            like=tuple(Part(product_id=product) for product in self.product),
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
    sheet: Path | None
    output: str


@click.command()
@click.argument("image", required=False, shell_complete=complete_files)
@click.option("--text", metavar="TEXT", help="Find products by a description; needs an encoder for text, such as clip.")
@click.option("--product", metavar="ID", multiple=True, help="Find products like this one, without itself. Repeatable.")
@click.option("--unlike", metavar="ID", multiple=True, help="Find products unlike this one. Repeatable.")
@click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Such as 'category = Apple', 'price < 50', or a filter in JSON. Repeatable; all have to hold.",
)
@click.option("--limit", default=10, show_default=True, help="How many products to find.")
@click.option("--offset", default=0, help="How many products to skip: for the next page, with the same --limit.")
@click.option("--min-score", type=float, help="Leave out products with a lower cosine, -1 to 1.")
@click.option("--within", type=float, help="Leave out products that score more than this below the best one.")
@store_options
@encoder_options
@setting_option("--encoder", help="Another name or directory of the collection's encoder.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw the query and its hits to this image file.")
@setting_option(
    "--allow-private-urls",
    is_flag=True,
    help="Fetch IMAGE also from this machine or a private network.",
)
@format_option("table", "json", "ids")
def search(**values: Any) -> None:
    """Find the products most like an image, a text, a product, or a mix of them.

    IMAGE is the path of an image file, an http(s): URL, or - for standard input.
    """
    options = SearchOptions(**values)
    query = options.query()
    if options.sheet is not None:
        _check_sheet(options.sheet)
    result = _find(query, options)
    if options.output == "json":
        click.echo(json.dumps({**asdict(result), "hits": [_hit_as_json(hit) for hit in result.hits]}))
    elif options.output == "ids":
        for hit in result.hits:
            click.echo(escape_controls(hit.product_id))
    else:
        _print_hits(result)
    if options.sheet is not None:
        _draw_result(options.sheet, query, result.hits)


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
@store_options
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw the first groups to this image file.")
@format_option("table", "json")
def duplicates(**values: Any) -> None:
    """Find images that are nearly the same in different products."""
    from lookalike.search.explore.duplicates import find_duplicates

    options = DuplicatesOptions(**values)
    if not math.isfinite(options.threshold):
        raise BadQuery(f"--threshold {options.threshold} is not a cosine; give a number between 0 and 1")
    if options.sheet is not None:
        _check_sheet(options.sheet)
    with options.open_store() as store:
        groups = find_duplicates(store, options.threshold)
    if options.output == "json":
        click.echo(json.dumps({"threshold": options.threshold, "groups": [asdict(group) for group in groups]}))
    else:
        _print_groups(groups, options.threshold)
    if options.sheet is not None:
        from lookalike.search.contact_sheet import draw_groups

        _save_sheet(draw_groups([group.images for group in groups[:_MAX_DRAWN_GROUPS]]), options.sheet)


def _find(query: Query, options: SearchOptions) -> "SearchResult":
    from lookalike.search.finder import Finder

    with options.open_store() as store:
        return Finder(store, lambda: options.load_encoder(store.fingerprint.encoder)).find(query)


def _hit_as_json(hit: "Hit") -> dict[str, Any]:
    return {name: value for name, value in asdict(hit).items() if name != "images"}


def _read_image(image: str, *, allow_private: bool) -> bytes:
    if image == "-":
        return _read_limited(sys.stdin.buffer)
    if image.lower().startswith(("http://", "https://")):
        from lookalike.encode.fetch.query_image import fetch_query_image

        return fetch_query_image(image, allow_private=allow_private)
    try:
        with Path(image).open("rb") as file:
            return _read_limited(file)
    except FileNotFoundError as error:
        raise BadQuery(f"there is no file {image!r}; to search by a product id, write --product {image}") from error
    except OSError as error:
        raise BadQuery(f"the image {image!r} cannot be read: {error.strerror}") from error


def _read_limited(file: BinaryIO) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadQuery(f"the image has more than {MAX_BYTES} bytes, the limit; make it smaller")
    return content


def _check_sheet(path: Path) -> None:
    if not path.parent.is_dir():
        raise BadSettings(f"--sheet {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadSettings(f"--sheet {str(path)!r} should end in .png, .jpg or .webp")


def _draw_result(path: Path, query: Query, hits: "list[Hit]") -> None:
    from lookalike.search.contact_sheet import SheetQuery, draw_sheet

    words = " + ".join(part.text or part.product_id or "your image" for part in query.liked)
    _save_sheet(draw_sheet(SheetQuery(query.image, words), hits), path)


def _save_sheet(sheet: "Image.Image", path: Path) -> None:
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise BadSettings(f"--sheet {str(path)!r} cannot be written: {error}") from error
    click.echo(f"sheet: {path}", err=True)


def _print_hits(result: "SearchResult") -> None:
    columns = sorted({name for hit in result.hits for name in hit.metadata})
    rows = [
        [rank, hit.product_id, hit.score, *(hit.metadata.get(name, "") for name in columns), _short_path(hit.image)]
        for rank, hit in enumerate(result.hits, 1)
    ]
    print_table(["", "product_id", "score", *columns, "image"], rows)
    click.echo(f"{len(result.hits)} products in {result.took_ms:.1f} ms")


def _print_groups(groups: "list[Group]", threshold: float) -> None:
    rows = [
        [number, hit.product_id, hit.score, _short_path(hit.image)]
        for number, group in enumerate(groups, 1)
        for hit in group.images
    ]
    print_table(["group", "product_id", "score", "image"], rows)
    click.echo(f"{len(groups)} groups of images alike, at {threshold} or more")


def _short_path(image: str) -> str:
    """Shorten a path below the working directory to a relative one: easier to read, and to copy."""
    return image.removeprefix(f"{Path.cwd()}/")
