"""Variables of the environment that nothing reads: most are mistyped."""

import os
from collections.abc import Iterator, Set

import click

from lookalike.config.setting import (
    OTHER_VARIABLES,
    PREFIX,
    WITHOUT_OPTION,
    collect_settings,
    list_commands,
    list_settings,
)
from lookalike.schema.spelling import find_nearest

# Variables that do not have our prefix, and may belong to something else: only a near miss is worth a word.
_FOREIGN_PREFIX = "MILVUS_"
_FOREIGN = ("MILVUS_URI", "MILVUS_TOKEN")
_NEAR = 0.85


def warn_unread_variables(context: click.Context, in_env_file: Set[str]) -> None:
    """Print a warning on stderr for each variable with our prefix that no command reads."""
    for message in find_unread_variables(context, in_env_file):
        warn(message)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    click.secho("Warning: ", fg="yellow", bold=True, nl=False, err=True)
    click.echo(message, err=True)


def find_unread_variables(context: click.Context, in_env_file: Set[str]) -> Iterator[str]:
    """Yield a message for each variable that no command reads. The modules of all commands are imported if need be."""
    own = sorted(name for name in os.environ if name.upper().startswith(PREFIX))
    if not _read_by_this_command(context).issuperset(own):
        known = _read_by_any_command(context)
        for name in own:
            if name not in known:
                yield f"{_locate(name, in_env_file)} is read by nothing{_advise(name, known)}"
    for name in sorted(os.environ):
        if name.startswith(_FOREIGN_PREFIX) and name not in _FOREIGN:
            nearest = find_nearest(name, _FOREIGN, _NEAR)
            if nearest:
                yield f"{_locate(name, in_env_file)} is not read by lookalike; did you mean {nearest}?"


def _advise(name: str, known: Set[str]) -> str:
    """Name the nearest variable, compared by what follows the prefix that all have."""
    words = [known_name.removeprefix(PREFIX) for known_name in sorted(known)]
    nearest = find_nearest(name.upper().removeprefix(PREFIX), words)
    if nearest:
        return f"; did you mean {PREFIX}{nearest}?"
    return "; unset it, or see `lookalike COMMAND --help` for the variables that there are"


def _locate(name: str, in_env_file: Set[str]) -> str:
    return f"{name} in .env" if name in in_env_file else name


def _read_without_option() -> set[str]:
    return {*OTHER_VARIABLES, *(variable for setting in WITHOUT_OPTION.values() for variable in setting.variables)}


def _read_by_this_command(context: click.Context) -> set[str]:
    group = context.command
    name = context.invoked_subcommand
    command = group.get_command(context, name) if isinstance(group, click.Group) and name else None
    settings = list_settings(command) if command else {}
    return _read_without_option() | {variable for setting in settings.values() for variable in setting.variables}


def _read_by_any_command(context: click.Context) -> set[str]:
    settings = [setting for own in collect_settings(list_commands(context)).values() for setting in own.values()]
    return _read_without_option() | {variable for setting in settings for variable in setting.variables}
