"""Time and peak memory of an ingest for growing numbers of images.

    python benchmarks/growth.py 1000 10000 100000
    python benchmarks/growth.py 1000 10000 100000 --uri http://localhost:19530

Runs a separate `lookalike ingest` into a new collection for each number, and times the whole command.
"""

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

import click

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])


@click.command()
@click.argument("counts", type=int, nargs=-1, required=True)
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server; its memory is not counted.  [default: Milvus Lite]")
@click.option(
    "--json", "output", type=click.Path(path_type=Path), help="Append the figures to this file, as JSON lines."
)
def main(counts: tuple[int, ...], encoder: str, uri: str | None, output: Path | None) -> None:
    """Print seconds, images per second and peak memory for each number of images."""
    from benchmarks.command import generate_images, run_ingest, write_image, write_manifest

    kind = "server" if uri else "Milvus Lite"
    print(f"{encoder}, {kind}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        contents = islice(generate_images(folder), max(counts))
        rows = [write_image(folder, n, content) for n, content in enumerate(contents)]
        for count in counts:
            manifest = write_manifest(folder / f"{count}.jsonl", rows[:count])
            store = ["--uri", uri or f"{folder}/{count}.db", "--collection", f"growth_{count}"]
            run = run_ingest(manifest, "--encoder", encoder, *store)
            assert run.summary["stored"] == count, run.summary
            print(
                f"  {count:8} images {run.seconds:8.1f} s  {count / run.seconds:6.0f} /s  {run.peak_mb:6.0f} MB",
                flush=True,
            )
            if output:
                with output.open("a") as lines:
                    figures = {"images": count, "kind": kind, "seconds": run.seconds, "peak": run.peak_mb}
                    lines.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
