"""Time and peak memory of an ingest at growing numbers of images: linear, and flat.

    python benchmarks/growth.py 1000 10000 100000
    python benchmarks/growth.py 1000 10000 100000 --uri http://localhost:19530

Each is a `lookalike ingest` of its own, into a collection of its own, timed as a whole.
"""

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

import click

# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])


@click.command()
@click.argument("counts", type=int, nargs=-1, required=True)
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server, to leave out what Milvus Lite keeps in the same process.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Add the figures to this file, a line each.")
def main(counts: tuple[int, ...], encoder: str, uri: str | None, output: Path | None) -> None:
    """Print seconds, peak memory and pace for each number of images."""
    from benchmarks.command import draw_images, ingest, row, write

    print(f"{encoder}, {'a server' if uri else 'Milvus Lite'}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        rows = [row(folder, n, content) for n, content in enumerate(islice(draw_images(folder), max(counts)))]
        for count in counts:
            manifest = write(folder / f"{count}.jsonl", rows[:count])
            place = ["--uri", uri or f"{folder}/{count}.db", "--collection", f"growth_{count}"]
            run = ingest(manifest, "--encoder", encoder, *place)
            assert run.summary["stored"] == count, run.summary
            print(
                f"  {count:8} images {run.seconds:8.1f} s  {count / run.seconds:6.0f} /s  {run.peak:6.0f} MB",
                flush=True,
            )
            if output:
                kind = "server" if uri else "Milvus Lite"
                with output.open("a") as lines:
                    figures = {"images": count, "kind": kind, "seconds": run.seconds, "peak": run.peak}
                    lines.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
