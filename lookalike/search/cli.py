"""`lookalike search` and `lookalike info`: a question in, product ids out."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from lookalike.encode.decode import MAX_BYTES
from lookalike.schema.errors import BadQuery, BadSettings
from lookalike.schema.filters.parser import parse_filter
from lookalike.schema.output import format_option, print_table, printable
from lookalike.schema.settings import encoder_options, store_options
from lookalike.search.query import Part, Query

_GROUPS_DRAWN = 20

if TYPE_CHECKING:
    from PIL import Image

    from lookalike.encode.backends.select import EngineName
    from lookalike.encode.encoder import Encoder
    from lookalike.schema.product import Hit
    from lookalike.search.finder import SearchResult


@click.command()
@click.argument("image", required=False)
@click.option("--text", metavar="WORDS", help="Words to look for; needs an encoder with words, such as clip.")
@click.option(
    "--product", metavar="ID", multiple=True, help="A product to be like; left out of the answer. Repeatable."
)
@click.option("--unlike", metavar="ID", multiple=True, help="A product not to be like; may be repeated.")
@click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Such as 'category = Apple', 'price < 50', or a filter in JSON; repeated, all must hold.",
)
@click.option("--limit", default=10, show_default=True, help="How many products.")
@click.option("--offset", default=0, help="How many products to skip: the next page, with the same --limit.")
@click.option("--min-score", type=float, help="Leave out products below this cosine, -1 to 1.")
@click.option("--within", type=float, help="Leave out products this much below the best one's cosine.")
@store_options
@encoder_options
@click.option("--encoder", help="Another name or directory of the collection's encoder.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw question and answers to this image.")
@format_option("table", "json", "ids")
def search(image: str | None, where: tuple[str, ...], output: str, sheet: Path | None, **options: Any) -> None:
    """Find the products most like the image IMAGE (- for standard input), words, a product, or a mix."""
    query = Query(
        image=None if image is None else _read(image),
        text=options["text"],
        like=tuple(Part(product_id=product) for product in options["product"]),
        unlike=tuple(Part(product_id=product) for product in options["unlike"]),
        where=parse_filter(where),
        limit=options["limit"],
        offset=options["offset"],
        min_score=options["min_score"],
        within=options["within"],
    )
    if sheet is not None:
        _check_sheet(sheet)
    answer = _ask(query, options)
    if output == "json":
        click.echo(json.dumps({**asdict(answer), "hits": [_as_json(hit) for hit in answer.hits]}))
    elif output == "ids":
        for hit in answer.hits:
            click.echo(printable(hit.product_id))
    else:
        _print_hits(answer)
    if sheet is not None:
        _write_sheet(sheet, query, answer.hits)


@click.command()
@store_options
@format_option("table", "json")
def info(uri: str, token: str, collection: str, output: str) -> None:
    """Show what a collection holds: its encoder, images, products and columns."""
    from lookalike.schema.milvus.store import Store
    from lookalike.search.collection_stats import count_collection

    with Store.open(uri, token=token, collection=collection) as store:
        catalogue = count_collection(store)
        encoder = asdict(store.fingerprint)
    if output == "json":
        click.echo(json.dumps({"collection": collection, "uri": uri, "encoder": encoder, **asdict(catalogue)}))
        return
    click.echo(f"{collection} at {uri}: {catalogue.images} images of {catalogue.products} products")
    click.echo(f"encoder {encoder['encoder']}, {encoder['dim']}-d, {encoder['pooling']}, weights {encoder['weights']}")
    click.echo(f"  {encoder['preprocessing']}")
    for source, count in catalogue.sources.items():
        click.echo(f"source {printable(source)}: {count} images")
    print_table(
        ["column", "type", "images"],
        [[name, kind, count] for name, kinds in catalogue.columns.items() for kind, count in kinds.items()],
    )


@click.command()
@click.option("--threshold", default=0.98, show_default=True, type=click.FloatRange(0, 1), help="The least cosine.")
@store_options
@click.option("--sheet", type=click.Path(path_type=Path), help="Draw the first groups to this image.")
@format_option("table", "json")
def duplicates(threshold: float, output: str, sheet: Path | None, **options: Any) -> None:
    """Find images that are nearly the same in different products."""
    from lookalike.schema.milvus.store import Store
    from lookalike.search.duplicates import find_duplicates

    if not math.isfinite(threshold):
        raise BadQuery(f"--threshold {threshold} is no cosine; take a number between 0 and 1")
    if sheet is not None:
        _check_sheet(sheet)
    with Store.open(options["uri"], token=options["token"], collection=options["collection"]) as store:
        groups = find_duplicates(store, threshold)
    if output == "json":
        click.echo(json.dumps({"threshold": threshold, "groups": [asdict(group) for group in groups]}))
    else:
        images = [(number, hit) for number, group in enumerate(groups, 1) for hit in group.images]
        rows = [[number, hit.product_id, hit.score, _shown(hit.image)] for number, hit in images]
        print_table(["group", "product_id", "score", "image"], rows)
        click.echo(f"{len(groups)} groups of images alike, at {threshold} or more")
    if sheet is not None:
        from lookalike.search.contact_sheet import draw_groups

        _save(draw_groups([group.images for group in groups[:_GROUPS_DRAWN]]), sheet)


def _ask(query: Query, options: dict[str, Any]) -> "SearchResult":
    from lookalike.schema.milvus.store import Store
    from lookalike.search.finder import Finder

    with Store.open(options["uri"], token=options["token"], collection=options["collection"]) as store:

        def load() -> "Encoder":
            from lookalike.encode.registry import load_encoder

            name = options["encoder"] or store.fingerprint.encoder
            # One question is not worth a measurement, nor a compilation.
            engine: EngineName = "kept" if options["engine"] in ("auto", "compile") else options["engine"]
            return load_encoder(name, device=options["device"], dtype=options["dtype"], engine=engine)

        return Finder(store, load).find(query)


def _as_json(hit: "Hit") -> dict[str, Any]:
    return {name: value for name, value in asdict(hit).items() if name != "images"}


def _read(image: str) -> bytes:
    if image == "-":
        return _limited(sys.stdin.buffer)
    try:
        with Path(image).open("rb") as file:
            return _limited(file)
    except OSError as error:
        raise BadQuery(f"the image {image!r} cannot be read: {error.strerror}") from error


def _limited(file: BinaryIO) -> bytes:
    content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadQuery(f"the image has more than {MAX_BYTES} bytes, the limit; make it smaller")
    return content


def _check_sheet(path: Path) -> None:
    if not path.parent.is_dir():
        raise BadSettings(f"--sheet {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadSettings(f"--sheet {str(path)!r} should end in .png, .jpg or .webp")


def _write_sheet(path: Path, query: Query, hits: "list[Hit]") -> None:
    from lookalike.search.contact_sheet import SheetQuery, draw_sheet

    words = " + ".join(part.text or part.product_id or "your image" for part in query.liked)
    _save(draw_sheet(SheetQuery(query.image, words), hits), path)


def _save(drawn: "Image.Image", path: Path) -> None:
    try:
        drawn.save(path)
    except (OSError, ValueError) as error:
        raise BadSettings(f"--sheet {str(path)!r} cannot be written: {error}") from error
    click.echo(f"sheet: {path}", err=True)


def _print_hits(answer: "SearchResult") -> None:
    columns = sorted({name for hit in answer.hits for name in hit.metadata})
    print_table(
        ["", "product_id", "score", *columns, "image"],
        [
            [place, hit.product_id, hit.score, *(hit.metadata.get(name, "") for name in columns), _shown(hit.image)]
            for place, hit in enumerate(answer.hits, 1)
        ],
    )
    click.echo(f"{len(answer.hits)} products in {answer.took_ms:.1f} ms")


def _shown(image: str) -> str:
    """A path below the current folder is easier to read, and to copy, without that folder."""
    here = f"{Path.cwd()}/"
    return image.removeprefix(here)
