"""`lookalike ingest` and `lookalike sample`: options in, summary out."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from encode.decode import MOST_PIXELS
from encode.models import DEFAULT
from schema.errors import BadSource, LookalikeError
from schema.output import format_option
from schema.settings import encoder_options, setting, store_options

if TYPE_CHECKING:
    from encode.encoder import Encoder
    from ingest.pipeline import Pace
    from ingest.report import Report
    from ingest.sources import FolderSource

INTERRUPTED = 130
NOTHING_STORED = 1
_EXAMPLE_LAYOUT = "{category}/{product_id}/{image}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go."""

    uri: str
    token: str
    collection: str


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@setting(
    "--layout",
    metavar="TEMPLATE",
    help=f"What the path of a picture says, for example '{_EXAMPLE_LAYOUT}'; {{price:float}} is a number.",
)
@setting("--encoder", default=DEFAULT, show_default=True, help="An encoder's name, model hub id or directory.")
@store_options
@setting(
    "--batch-size", type=click.IntRange(1, 4096), help="Pictures in a batch.  [default: 16 on a CPU, 256 on a GPU]"
)
@setting("--num-workers", type=click.IntRange(1, 256), help="Threads that read and decode.  [default: the cores]")
@encoder_options
@setting("--source-name", metavar="NAME", help="Whose rows these are.  [default: the folder's full path]")
@setting("--max-pixels", type=click.IntRange(1, MOST_PIXELS), help="Larger pictures are rejected.  [default: 64000000]")
@setting("--report", "report_file", type=click.Path(path_type=Path), help="JSONL file: one line a rejected picture.")
@format_option("table", "json")
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def ingest(source: Path, layout: str | None, encoder: str, output: str, **options: Any) -> None:
    """Bring the pictures of the folder SOURCE into a collection.

    A bad picture is reported and the run goes on. Running it again changes nothing that is there already.
    """
    from ingest.layout import FolderRule, Layout
    from ingest.report import Report
    from ingest.sources import FolderSource

    folder = FolderSource(source, Layout(layout) if layout else FolderRule(), options["source_name"])
    _state_layout(folder, layout)
    target = Target(options["uri"], options["token"], options["collection"])
    progress = _progress(folder, shown=not options["no_progress"])
    with progress as on_progress, Report(options["report_file"], on_progress) as report:
        ending = _run(folder, _loader(encoder, options), target, report)
    _print_summary(report, target, encoder, output)
    if isinstance(ending, KeyboardInterrupt):
        click.echo("Interrupted. What is counted as stored is kept; run it again to complete the collection.", err=True)
        sys.exit(INTERRUPTED)
    if ending is not None:
        raise ending
    if report.rejected and not report.stored:
        sys.exit(NOTHING_STORED)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def sample(folder: Path) -> None:
    """Draw a sample catalogue into FOLDER: photos to ingest, and queries to ask."""
    from ingest.sample import draw_catalogue

    count = draw_catalogue(folder)
    click.echo(f"{count} photos in {folder / 'photos'}, and photos to ask with in {folder / 'queries'}")
    click.echo(f"Next: lookalike ingest {folder / 'photos'} --layout '{_EXAMPLE_LAYOUT}'")


def _state_layout(folder: "FolderSource", layout: str | None) -> None:
    """Say how paths are read, with an example; a layout that fits no picture ends here, before anything is made."""
    from ingest.report import Rejection

    example = folder.example()
    if example is None:
        first = next(folder.images(), None)
        if isinstance(first, Rejection):
            raise BadSource(
                f"SOURCE {str(folder.root)!r} holds no picture that can be taken: {first.image!a}: {first.reason}"
            )
        raise BadSource(f"SOURCE {str(folder.root)!r} holds no pictures; is it the right folder, and mounted?")
    path, place = example
    meaning = "".join(f", {name} {value!r}" for name, value in place.metadata.items())
    rule = f"Layout {layout}" if layout else f"No --layout: {folder.description}"
    click.echo(f"{rule}\n  {path!a} is product {place.product_id!r}{meaning}", err=True)


def _loader(name: str, options: dict[str, Any]) -> Callable[[], tuple["Encoder", "Pace"]]:
    """Load the encoder and decide how much is under way at once, by the device it is on."""

    def load() -> tuple["Encoder", "Pace"]:
        import torch

        from encode.decode import MAX_PIXELS
        from encode.device import cores, own_process
        from encode.models import load_encoder
        from ingest.pipeline import Pace

        encoder = load_encoder(name, device=options["device"], dtype=options["dtype"])
        device = getattr(encoder, "device", torch.device("cpu"))
        return encoder, Pace(
            batch_size=options["batch_size"] or (16 if device.type == "cpu" else 256),
            workers=options["num_workers"] or cores(),
            lanes=own_process(device),
            max_pixels=options["max_pixels"] or MAX_PIXELS,
        )

    return load


def _run(
    folder: "FolderSource", load: Callable[[], tuple["Encoder", "Pace"]], target: Target, report: "Report"
) -> KeyboardInterrupt | LookalikeError | None:
    """Run the pipeline; what ended it early comes back, so that the counts are printed first."""
    from ingest.pipeline import ingest as run
    from schema.store import Store

    try:
        encoder, pace = load()
        with Store.create(target.uri, encoder.fingerprint, token=target.token, collection=target.collection) as store:
            try:
                run(folder.images(), encoder, store, report, pace)
            except KeyboardInterrupt as error:
                store.flush()
                return error
    except (KeyboardInterrupt, LookalikeError) as error:
        return error
    return None


@contextmanager
def _progress(folder: "FolderSource", *, shown: bool) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal: pictures done, images/s, time left."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("ingest", total=folder.count(), rate="")

        def on_progress(done: int) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, rate=f"{speed:.1f} images/s" if speed else "")

        yield on_progress


def _print_summary(report: "Report", target: Target, encoder: str, output: str) -> None:
    summary = report.summary()
    if output == "json":
        click.echo(
            json.dumps({**asdict(summary), "collection": target.collection, "uri": target.uri, "encoder": encoder})
        )
        return
    if not summary.stored + summary.rejected:
        return
    for rejection in report.first_rejections:
        click.echo(f"rejected {rejection.image!a}: {rejection.reason}", err=True)
    if summary.rejected > len(report.first_rejections):
        click.echo(f"… and {summary.rejected - len(report.first_rejections)} more; --report FILE lists all", err=True)
    click.echo(
        f"stored {summary.stored}, rejected {summary.rejected} in {summary.seconds:.1f} s "
        f"({summary.images_per_second:.1f} images/s) → {target.collection} at {target.uri}"
    )
