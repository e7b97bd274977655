"""What an update costs against a full ingest: no change, new images, new prices, removed products.

    python benchmarks/update.py [--images 20000] [--uri URI] [--encoder NAME]

Each step is a `lookalike ingest` of its own, timed as a whole: starting Python, opening Milvus, planning, writing.
The images are drawn ones, each made another by bytes after its end.
"""

import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import click

# This folder's ingest.py would hide the package `ingest`.
sys.path[0] = str(Path(__file__).parents[1])


@click.command()
@click.option("--images", default=20_000, show_default=True)
@click.option("--encoder", default="efficientnet-lite0", show_default=True)
@click.option("--uri", help="A Milvus server; by default Milvus Lite in a folder of its own.")
def main(images: int, encoder: str, uri: str | None) -> None:
    """Time each step, and print it beside the full ingest."""
    from benchmarks.command import draw_images, ingest, row, write

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder, hundredth = Path(scratch), images // 100
        drawn = draw_images(folder)
        rows = [row(folder, n, next(drawn)) for n in range(images)]
        place = ["--uri", uri or f"{folder}/bench.db", "--collection", "bench_update", "--encoder", encoder]
        print(f"{images} images, {encoder}, {uri or 'Milvus Lite'}")

        def step(name: str) -> None:
            run = ingest(write(folder / "catalogue.jsonl", rows), "--prune", *place)
            full.append(run.seconds)
            kinds = ("new", "metadata", "unchanged", "removed", "embedded")
            counts = ", ".join(f"{run.summary[kind]} {kind}" for kind in kinds)
            share = f"{run.seconds / full[0]:7.2%} of full"
            print(f"  {name:18} {run.seconds:7.2f} s  {share}  {run.peak:5.0f} MB   {counts}", flush=True)

        full: list[float] = []
        step("full")
        # What was written less than two seconds ago is looked at twice.
        time.sleep(2)
        step("no change")
        rows += [row(folder, images + n, next(drawn)) for n in range(hundredth)]
        step("1 % new images")
        for one in islice(rows, 0, None, 100):
            one["price"] += 1
        step("1 % new prices")
        del rows[:hundredth]
        step("1 % removed")


if __name__ == "__main__":
    main()
