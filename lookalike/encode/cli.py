"""`lookalike encoders`: which encoders there are, and whether their weights are on this machine."""

import json
from typing import Any

import click

from lookalike.encode.registry import DEFAULT_ENCODER, REGISTRY, RegisteredEncoder
from lookalike.schema.output import format_option, print_records, print_table


@click.command()
@format_option("table", "json", "jsonl", "csv")
def encoders(output: str) -> None:
    """List the encoders, and whether their weights are on this machine."""
    rows = [_describe(encoder) for encoder in REGISTRY]
    if output == "json":
        click.echo(json.dumps(rows))
        return
    if output != "table":
        print_records(output, rows)
        return
    cells = [
        [row["name"], row["description"], row["dim"], "yes" if row["has_text"] else "no", row["state"]] for row in rows
    ]
    print_table(["encoder", "", "dim", "text", "weights"], cells)
    click.echo("Also any model hub id or directory that transformers' AutoModel loads: --encoder facebook/dinov2-small")


def _describe(encoder: RegisteredEncoder) -> dict[str, Any]:
    return {
        "name": encoder.name,
        "description": encoder.description,
        "dim": encoder.dim,
        "has_text": encoder.has_text,
        "checkpoint": encoder.checkpoint,
        "state": _weights_state(encoder),
        "default": encoder.name == DEFAULT_ENCODER,
    }


def _weights_state(encoder: RegisteredEncoder) -> str:
    if encoder.checkpoint is None:
        return "installed"
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(encoder.checkpoint, "config.json"), str):
        return "downloaded"
    return f"downloaded at first use: {encoder.checkpoint}"
