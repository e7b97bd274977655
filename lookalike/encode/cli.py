"""`lookalike encoders`: what can be used here and what each needs."""

import json
from dataclasses import asdict

import click

from lookalike.encode.registry import DEFAULT_ENCODER, REGISTRY, RegisteredEncoder
from lookalike.schema.output import format_option, print_table


@click.command()
@format_option("table", "json")
def encoders(output: str) -> None:
    """List the encoders, and whether their weights are on this machine."""
    rows = [{**asdict(known), "state": _state(known), "default": known.name == DEFAULT_ENCODER} for known in REGISTRY]
    if output == "json":
        click.echo(json.dumps(rows))
        return
    print_table(
        ["encoder", "", "dim", "words", "weights"],
        [[row["name"], row["description"], row["dim"], "yes" if row["words"] else "no", row["state"]] for row in rows],
    )
    click.echo("Also any model hub id or directory that transformers' AutoModel loads: --encoder facebook/dinov2-small")


def _state(known: RegisteredEncoder) -> str:
    if known.checkpoint is None:
        return "installed"
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(known.checkpoint, "config.json"), str):
        return "downloaded"
    return f"downloaded at first use: {known.checkpoint}"
