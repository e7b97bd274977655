"""Peak memory of an ingest, at growing numbers of pictures: it should not grow with them.

    python benchmarks/memory.py [--encoder efficientnet-lite0] [2000 10000]

Each run is a `lookalike ingest` of its own over links to drawn pictures.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click

# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])


@click.command()
@click.argument("counts", type=int, nargs=-1)
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server, to leave out what Milvus Lite keeps in the same process.")
def main(counts: tuple[int, ...], encoder: str, uri: str | None) -> None:
    """Print the peak resident memory and the pace for each number of pictures."""
    from ingest.sample import draw_catalogue

    with tempfile.TemporaryDirectory() as scratch:
        draw_catalogue(Path(scratch) / "drawn")
        drawn = sorted((Path(scratch) / "drawn" / "photos").rglob("*.jpg"))
        for count in counts or (2_000, 10_000):
            folder = Path(scratch) / str(count)
            folder.mkdir()
            for n in range(count):
                (folder / f"{n:06}.jpg").symlink_to(drawn[n % len(drawn)])
            _ingest(folder, encoder, uri or f"{folder}.db")


def _ingest(folder: Path, encoder: str, uri: str) -> None:
    arguments = ["ingest", str(folder), "--encoder", encoder, "--uri", uri, "--format", "json"]
    arguments += ["--collection", f"memory_{folder.name}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run(
        [sys.executable, "-m", "lookalike", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    summary = json.loads(done.stdout)
    # The largest child so far: the counts have to grow.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    shown = f"{peak / 1024:.0f} MB" if peak > before else f"no more than {before / 1024:.0f} MB"
    print(f"{summary['stored']} images: peak {shown}, {summary['images_per_second']:.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
