"""`lookalike config` and `lookalike completion`."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from lookalike.config.file import FILE, PROJECT_FILE
from lookalike.config.setting import list_commands, suggest
from lookalike.config.sources import Sources
from lookalike.config.values import DEFAULT, Value, list_values
from lookalike.schema.errors import BadSettings
from lookalike.schema.output import format_option, print_table

_MAX_NAMED = 3
_PROGRAM = "lookalike"


def _complete_command(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    root = context.find_root()
    names = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command()
@click.argument("command", required=False, shell_complete=_complete_command)
@format_option("table", "json")
@click.pass_context
def config(context: click.Context, command: str | None, output: str) -> None:
    """Show the settings in force, and where each comes from; secrets are hidden.

    With COMMAND, all settings of that command. Without, those that several commands share, and all that are not at
    their default. Options on the command line come before the environment, then .env, then the settings file.
    """
    sources = context.find_root().obj
    values = list_values(_choose_commands(list_commands(context), command), sources)
    if command is None:
        sharing = Counter(value.name for value in values for _ in value.commands)
        values = [value for value in values if value.source != DEFAULT or sharing[value.name] > 1]
    if output == "json":
        rows = [asdict(value) for value in values]
        click.echo(json.dumps({"file": sources.file and sources.file.place(), "settings": rows}))
        return
    click.echo(_describe_file(sources))
    print_table(
        ["setting", "value", "from", *([] if command else ["commands"])],
        [[*_describe(value), *([] if command else [_describe_commands(value)])] for value in values],
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and their values with the Tab key.

    \b
    bash: add to ~/.bashrc    eval "$(lookalike completion bash)"
    zsh:  add to ~/.zshrc     eval "$(lookalike completion zsh)"
    fish: run once            lookalike completion fish > ~/.config/fish/completions/lookalike.fish
    """  # noqa: D301  click's mark for lines that are not joined
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  click has all three
    script = kind(context.find_root().command, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE")
    # Not kind.source: that of bash runs bash for its version, and the script may be made on another machine.
    click.echo(ShellComplete.source(script))


def _choose_commands(commands: Mapping[str, click.Command], chosen: str | None) -> Mapping[str, click.Command]:
    if chosen is None:
        return commands
    if chosen not in commands:
        raise BadSettings(f"there is no command {chosen!r}{suggest(chosen, commands)}")
    return {chosen: commands[chosen]}


def _describe_file(sources: Sources) -> str:
    if sources.file is None:
        return f"settings file: none; there is no {FILE} here, and no [tool.lookalike] in a {PROJECT_FILE}"
    return f"settings file: {sources.file.place()}"


def _describe(value: Value) -> list[Any]:
    if value.value is None or value.value == "":
        shown = f"({value.default_text})" if value.default_text else ""
    else:
        shown = json.dumps(value.value) if isinstance(value.value, bool | list) else str(value.value)
    return [value.name, shown, value.source]


def _describe_commands(value: Value) -> str:
    count = len(value.commands)
    return ", ".join(value.commands) if count <= _MAX_NAMED else f"{count} commands"
