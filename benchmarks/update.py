"""The time of an update compared with a full ingest: no change, new images, new prices, removed products.

    python benchmarks/update.py [--images 20000] [--uri URI] [--encoder NAME]

Each step is a separate `lookalike ingest`; the whole command is timed: starting Python, opening Milvus, comparing,
writing. The images are synthetic; appended bytes make each file different.
"""

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import click

# Import from this checkout; this folder itself holds an `ingest.py` and a `search.py`.
sys.path[0] = str(Path(__file__).parents[1])


@click.command()
@click.option("--images", default=20_000, show_default=True)
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server.  [default: Milvus Lite in a temporary folder]")
def main(images: int, encoder: str, uri: str | None) -> None:
    """Time each step, and print it as a share of the full ingest."""
    from benchmarks.command import generate_images, run_ingest, write_image, write_manifest

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder, hundredth = Path(scratch), images // 100
        contents = generate_images(folder)
        rows = [write_image(folder, n, next(contents)) for n in range(images)]
        options = ["--uri", uri or f"{folder}/bench.db", "--collection", "bench_update", "--encoder", encoder]
        print(f"{images} images, {encoder}, {uri or 'Milvus Lite'}")

        def run_step(name: str) -> None:
            run = run_ingest(write_manifest(folder / "catalogue.jsonl", rows), "--prune", *options)
            durations.append(run.seconds)
            kinds = ("new", "metadata", "unchanged", "removed", "embedded")
            counts = ", ".join(f"{run.summary[kind]} {kind}" for kind in kinds)
            share = f"{run.seconds / durations[0]:7.2%} of full"
            print(f"  {name:18} {run.seconds:7.2f} s  {share}  {run.peak_mb:5.0f} MB   {counts}", flush=True)

        durations: list[float] = []
        run_step("full")
        # A file that was written less than two seconds before it was read is read again by the next run.
        time.sleep(2)
        run_step("no change")
        rows += [write_image(folder, images + n, next(contents)) for n in range(hundredth)]
        run_step("1 % new images")
        for row in islice(rows, 0, None, 100):
            row["price"] += 1
        run_step("1 % new prices")
        del rows[:hundredth]
        run_step("1 % removed")


if __name__ == "__main__":
    main()
