"""Draw the figures that the other benchmarks have written with --json, for docs/benchmarks.md.

    python benchmarks/search.py --rows 10000 --json search.jsonl
    python benchmarks/growth.py 1000 10000 --json growth.jsonl
    python benchmarks/plot.py search.jsonl growth.jsonl docs

Needs matplotlib (pip install matplotlib).
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

Rows = list[dict[str, Any]]

COLOURS = {"lookalike": "#2f6fed", "bare pymilvus": "#d9822b", "FAISS exact": "#8a8a8f", "FAISS HNSW": "#1d1d1f"}


@click.command()
@click.argument("search", type=click.Path(path_type=Path, exists=True))
@click.argument("growth", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def main(search: Path, growth: Path, folder: Path) -> None:
    """Write search.png and growth.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110})
    _searches(_read(search)).savefig(folder / "search.png", bbox_inches="tight")
    _growth(_read(growth)).savefig(folder / "growth.png", bbox_inches="tight")


def _read(file: Path) -> Rows:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _searches(rows: Rows) -> Any:
    """Median latency over the number of rows, without a filter and with one; Milvus Lite beside the server."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.8), sharey=True)
    places = [(server, kept) for server in (False, True) for kept in (1.0, 0.01)]
    for axis, (server, kept) in zip(axes, places, strict=True):
        lines: dict[str, Rows] = defaultdict(list)
        for row in rows:
            if row["case"].endswith("(server)") == server and row["kept"] == kept:
                lines[row["case"].removesuffix(" (server)")].append(row)
        for case, found in lines.items():
            found.sort(key=lambda row: row["rows"])
            axis.plot(
                [row["rows"] for row in found],
                [row["p50"] for row in found],
                marker="o",
                color=COLOURS[case],
                label=case,
                linewidth=2.5 if case == "lookalike" else 1.5,
            )
        share = "all rows" if kept == 1 else f"a filter that keeps {kept:.0%}"
        axis.set(
            xscale="log", yscale="log", xlabel="rows", title=f"{'Milvus 2.3.5' if server else 'Milvus Lite'}, {share}"
        )
        axis.grid(visible=True, which="major", alpha=0.25)
    axes[0].set_ylabel("median milliseconds a search")
    for axis in axes[::2]:
        axis.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    return figure


def _growth(rows: Rows) -> Any:
    """Seconds and peak memory over the number of images."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for kind, colour in (("Milvus Lite", "#2f6fed"), ("server", "#1d1d1f")):
        found = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["images"])
        images = [row["images"] for row in found]
        left.plot(images, [row["seconds"] for row in found], marker="o", color=colour, label=kind)
        right.plot(images, [row["peak"] for row in found], marker="o", color=colour, label=kind)
    left.set(xscale="log", yscale="log", xlabel="images", ylabel="seconds", title="time of an ingest")
    right.set(xscale="log", xlabel="images", ylabel="MB", title="its peak memory", ylim=(0, None))
    for axis in (left, right):
        axis.grid(visible=True, alpha=0.25)
        axis.legend(frameon=False)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
