"""A setting: an option that can also come from the environment, from `.env` or from a settings file."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import click

from lookalike.schema.spelling import find_nearest

PREFIX = "LOOKALIKE_"
_SECRETS = ("token", "api-keys")
_STATED_DEFAULT = re.compile(r"\s*\[default: (.*)\]$")


@dataclass(frozen=True, slots=True)
class Setting:
    """A name, as on the command line but without dashes in front, and where its value comes from."""

    name: str
    variables: tuple[str, ...]
    help: str
    default: Any = None
    default_text: str = ""
    """What happens without a value, in words; empty when `default` says it."""

    option: click.Option | None = None
    """None for a setting that has no option, since a command line is visible to others or is too late."""

    @property
    def is_secret(self) -> bool:
        """Whether its value must not be shown."""
        return self.name in _SECRETS


WITHOUT_OPTION = {
    setting.name: setting
    for setting in (
        Setting(
            "api-keys",
            ("LOOKALIKE_API_KEYS",),
            "API keys of the service: `key, key:write, …`.",
            default_text="none: only this machine is served",
        ),
        Setting(
            "cache",
            ("LOOKALIKE_CACHE",),
            "Folder for exported models and measurements.",
            default_text="~/.cache/lookalike",
        ),
    )
}
"""Settings of every command."""

# `--config` names the settings file itself; the others are for docker/compose.yaml, whose .env a command may read too.
OTHER_VARIABLES = ("LOOKALIKE_CONFIG", "LOOKALIKE_MEMORY", "LOOKALIKE_METRICS_KEY", "LOOKALIKE_SOURCE")


def list_settings(command: click.Command) -> dict[str, Setting]:
    """Return the settings among the options of a command, by name."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    settings = [_to_setting(option) for option in options if _list_variables(option)]
    return {setting.name: setting for setting in settings}


def list_commands(context: click.Context) -> dict[str, click.Command]:
    """Return all subcommands of the group at the root of a context, by name. Imports their modules."""
    root = context.find_root()
    group = root.command
    assert isinstance(group, click.Group)  # noqa: S101  `lookalike` is one
    found = {name: group.get_command(root, name) for name in group.list_commands(root)}
    return {name: command for name, command in found.items() if command is not None}


def collect_settings(commands: Mapping[str, click.Command]) -> dict[str, dict[str, Setting]]:
    """Return the settings of each command."""
    return {name: list_settings(command) for name, command in commands.items()}


def option_name(option: click.Parameter) -> str:
    """Return the long name of an option, without the dashes in front."""
    return max(option.opts, key=len).lstrip("-")


def suggest(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean …?" with the name nearest to `name`, or an empty string if none is near."""
    nearest = find_nearest(name, names)
    return f"; did you mean {nearest}?" if nearest else ""


def _to_setting(option: click.Option) -> Setting:
    default = str(option.default) if isinstance(option.default, PathLike) else option.default
    text = option.help or ""
    stated = _STATED_DEFAULT.search(text)
    return Setting(
        option_name(option),
        _list_variables(option),
        _STATED_DEFAULT.sub("", text),
        # Not None where click has no default, but a value of its own.
        False if option.is_flag else default if isinstance(default, str | int | float) else None,
        stated[1] if stated else "",
        option,
    )


def _list_variables(option: click.Option) -> tuple[str, ...]:
    if option.envvar is None:
        return ()
    return (option.envvar,) if isinstance(option.envvar, str) else tuple(option.envvar)
