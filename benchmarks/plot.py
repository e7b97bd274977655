"""Plot the figures that other benchmarks wrote with --json, for docs/benchmarks.md.

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
    _plot_searches(_read_rows(search)).savefig(folder / "search.png", bbox_inches="tight")
    _plot_growth(_read_rows(growth)).savefig(folder / "growth.png", bbox_inches="tight")


def _read_rows(file: Path) -> Rows:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _plot_searches(rows: Rows) -> Any:
    """Median latency over the number of rows, without a filter and with one, on Milvus Lite and on a server."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.8), sharey=True)
    panels = [(is_server, selectivity) for is_server in (False, True) for selectivity in (1.0, 0.01)]
    for axis, (is_server, selectivity) in zip(axes, panels, strict=True):
        lines: dict[str, Rows] = defaultdict(list)
        for row in rows:
            if row["case"].endswith("(server)") == is_server and row["selectivity"] == selectivity:
                lines[row["case"].removesuffix(" (server)")].append(row)
        for case, points in lines.items():
            points.sort(key=lambda row: row["rows"])
            axis.plot(
                [row["rows"] for row in points],
                [row["p50"] for row in points],
                marker="o",
                color=COLOURS[case],
                label=case,
                linewidth=2.5 if case == "lookalike" else 1.5,
            )
        matching = "all rows" if selectivity == 1 else f"a filter that matches {selectivity:.0%}"
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="rows",
            title=f"{'Milvus 2.3.5' if is_server else 'Milvus Lite'}, {matching}",
        )
        axis.grid(visible=True, which="major", alpha=0.25)
    axes[0].set_ylabel("median milliseconds per search")
    for axis in axes[::2]:
        axis.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    return figure


def _plot_growth(rows: Rows) -> Any:
    """Seconds and peak memory over the number of images."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for kind, colour in (("Milvus Lite", "#2f6fed"), ("server", "#1d1d1f")):
        points = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["images"])
        images = [row["images"] for row in points]
        left.plot(images, [row["seconds"] for row in points], marker="o", color=colour, label=kind)
        right.plot(images, [row["peak"] for row in points], marker="o", color=colour, label=kind)
    left.set(xscale="log", yscale="log", xlabel="images", ylabel="seconds", title="duration of an ingest")
    right.set(xscale="log", xlabel="images", ylabel="MB", title="peak memory", ylim=(0, None))
    for axis in (left, right):
        axis.grid(visible=True, alpha=0.25)
        axis.legend(frameon=False)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
