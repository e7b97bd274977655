"""What is in force: the value of each setting of each command, and where it comes from."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from lookalike.config.setting import WITHOUT_OPTION, Setting, collect_settings
from lookalike.config.sources import Sources
from lookalike.schema.errors import BadSettings

DEFAULT = "default"
_HIDDEN = "********"
_USER_IN_URI = re.compile(r"(?<=://)[^/@]+(?=@)")


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a setting, the same for all of `commands`."""

    name: str
    value: Any
    source: str
    """A variable, a place in a file, or "default"."""

    variables: tuple[str, ...]
    default_text: str
    commands: tuple[str, ...]


def list_values(commands: Mapping[str, click.Command], sources: Sources) -> list[Value]:
    """Return the values of all settings of `commands`, by name; those that are the same are listed together."""
    values: dict[tuple[str, str, str], Value] = {}
    for name, settings in collect_settings(commands).items():
        context = click.Context(commands[name], info_name=name)
        for setting in [*settings.values(), *WITHOUT_OPTION.values()]:
            value, source = _read(setting, context, sources)
            value = _hide_secrets(setting, _to_plain(value))
            key = (setting.name, repr(value), source)
            earlier = values[key].commands if key in values else ()
            values[key] = Value(setting.name, value, source, setting.variables, setting.default_text, (*earlier, name))
    return sorted(values.values(), key=lambda value: value.name)


def _read(setting: Setting, context: click.Context, sources: Sources) -> tuple[Any, str]:
    """Return a value and its source. Raises BadSettings for a variable whose value cannot be used."""
    variable = next((name for name in setting.variables if os.environ.get(name)), None)
    if variable and variable not in sources.variables_in_file:
        place = ".env" if variable in sources.variables_in_env_file else "environment"
        return _read_variable(setting, variable, context), f"{place} {variable}"
    found = sources.file.find(str(context.info_name), setting.name) if sources.file else None
    return found or (setting.default, DEFAULT)


def _read_variable(setting: Setting, variable: str, context: click.Context) -> Any:
    option = setting.option
    if option is None:
        return os.environ[variable]
    try:
        return option.type_cast_value(context, option.value_from_envvar(context))
    except click.BadParameter as error:
        problem = f"{variable} cannot be used for {context.info_name}: {error.message.rstrip('.')}"
        raise BadSettings(f"{problem}; correct it, or unset it") from error


def _to_plain(value: Any) -> Any:
    """Return a value that JSON has: text for a path, a list for a tuple."""
    if isinstance(value, tuple | list):
        return [*map(_to_plain, value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _hide_secrets(setting: Setting, value: Any) -> Any:
    if setting.is_secret:
        return _HIDDEN if value else value
    return _USER_IN_URI.sub(_HIDDEN, value) if isinstance(value, str) else value
