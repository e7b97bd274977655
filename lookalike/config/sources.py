"""Read all settings that do not come from the command line, once, at the start of a command."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from lookalike.config.check import build_default_map, read_values_without_option
from lookalike.config.file import SettingsFile, find_settings_file
from lookalike.config.setting import list_commands
from lookalike.config.variables import warn, warn_unread_variables
from lookalike.schema.errors import BadSettings
from lookalike.schema.settings import read_env_file

ASKS_FOR_HELP = "lookalike.asks_for_help"
_FILE_VARIABLE = "LOOKALIKE_CONFIG"
# It runs whenever a shell starts, in any folder: what is wrong there must not cost the user the Tab key.
_WITHOUT_SETTINGS = "completion"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings came from."""

    file: SettingsFile | None
    variables_in_env_file: frozenset[str]
    variables_in_file: frozenset[str]
    """Variables that were set from the settings file, for settings without an option."""


def read_sources(context: click.Context, chosen: str | None) -> Sources:
    """Read `.env` and the settings file, make the file's values the defaults of the commands, and warn of variables.

    Raises BadSettings. A call that asks for help, which may be needed to correct a file, gets the help all the same.
    """
    in_env_file: frozenset[str] = frozenset()
    if context.invoked_subcommand == _WITHOUT_SETTINGS:
        return Sources(None, in_env_file, frozenset())
    try:
        in_env_file = read_env_file()
        warn_unread_variables(context, in_env_file)
        return _read_file(context, chosen or os.environ.get(_FILE_VARIABLE), in_env_file)
    except BadSettings as error:
        if not context.meta[ASKS_FOR_HELP]:
            raise
        warn(str(error))
        _show_help(context)
        context.exit()


def _show_help(context: click.Context) -> None:
    """Print the help of the subcommand. It does not run, even if `--help` was the value of an option."""
    name = context.invoked_subcommand
    command = context.command.get_command(context, name) if isinstance(context.command, click.Group) and name else None
    if command:
        click.echo(command.get_help(click.Context(command, parent=context, info_name=name)))


def _read_file(context: click.Context, chosen: str | None, in_env_file: frozenset[str]) -> Sources:
    file = find_settings_file(chosen)
    if file is None:
        return Sources(None, in_env_file, frozenset())
    if chosen:
        # The processes that `lookalike up` starts read the same file.
        os.environ[_FILE_VARIABLE] = str(Path(chosen).absolute())
    return Sources(file, in_env_file, _apply(file, context))


def _apply(file: SettingsFile, context: click.Context) -> frozenset[str]:
    """Return the variables that were set."""
    context.default_map = build_default_map(file, list_commands(context))
    values = {name: value for name, value in read_values_without_option(file).items() if not os.environ.get(name)}
    os.environ.update(values)
    return frozenset(values)
