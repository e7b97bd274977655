"""The option --sheet: check its file, draw, save."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.schema.errors import BadSettings
from lookalike.search.query import Query

if TYPE_CHECKING:
    from PIL import Image

    from lookalike.schema.product import Hit
    from lookalike.search.explore.duplicates import Group

_MAX_DRAWN_GROUPS = 20


def check_sheet(path: Path | None) -> None:
    """Raise BadSettings for a file that cannot be drawn to."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise BadSettings(f"--sheet {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadSettings(f"--sheet {str(path)!r} should end in .png, .jpg or .webp")


def draw_result(path: Path, query: Query, hits: "Sequence[Hit]") -> None:
    """Draw a query, with all its images, and its hits. Raises BadSettings when the file cannot be written."""
    from lookalike.search.contact_sheet import SheetQuery, draw_sheet

    images = [part.image for part in query.liked if part.image is not None]
    words = [part.text or part.product_id or "" for part in query.liked if part.image is None]
    title = ["your image" if len(images) == 1 else f"{len(images)} images"] if images else []
    _save_sheet(draw_sheet(SheetQuery(images, " + ".join([*title, *words])), hits), path)


def draw_duplicates(path: Path, groups: "Sequence[Group]") -> None:
    """Draw the first groups; say so when there are more. Raises BadSettings when the file cannot be written."""
    from lookalike.search.contact_sheet import draw_groups

    _save_sheet(draw_groups([group.images for group in groups[:_MAX_DRAWN_GROUPS]]), path)
    if len(groups) > _MAX_DRAWN_GROUPS:
        click.echo(f"the sheet has the first {_MAX_DRAWN_GROUPS} of {len(groups)} groups", err=True)


def _save_sheet(sheet: "Image.Image", path: Path) -> None:
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise BadSettings(f"--sheet {str(path)!r} cannot be written: {error}") from error
    click.echo(f"sheet: {path}", err=True)
