"""Check a settings file against the options of the commands, and turn it into their defaults."""

from collections.abc import Mapping
from typing import Any

import click

from lookalike.config.file import SettingsFile
from lookalike.config.setting import WITHOUT_OPTION, Setting, collect_settings, option_name, suggest
from lookalike.schema.errors import BadSettings

_Commands = Mapping[str, click.Command]

_TEXT = "text in quotes"
_FLAG = "true or false"
_LIST = "a list of texts"
_INTEGER = "a whole number"
_NUMBER = "a number"
_TYPES: dict[str, tuple[type, ...]] = {
    _TEXT: (str, int),
    _FLAG: (bool,),
    _LIST: (list,),
    _INTEGER: (int,),
    _NUMBER: (int, float),
}


def build_default_map(file: SettingsFile, commands: _Commands) -> dict[str, dict[str, Any]]:
    """Return the defaults of each command, by the names of its parameters.

    Raises BadSettings for a key or a table that means nothing, and for a value of the wrong type.
    """
    settings = collect_settings(commands)
    _check_names(file, commands, settings)
    return {name: _build_defaults(file, commands[name], name, own) for name, own in settings.items()}


def read_values_without_option(file: SettingsFile) -> dict[str, str]:
    """Return the values for variables that no option has, by variable. Raises BadSettings for the wrong type."""
    values = {}
    for name, setting in WITHOUT_OPTION.items():
        if name in file.shared:
            value = file.shared[name]
            if not isinstance(value, str) or "\0" in value:
                raise BadSettings(f"{file.place()}: {name} has to be {_TEXT}")
            values[setting.variables[0]] = value
    return values


def _build_defaults(
    file: SettingsFile, command: click.Command, name: str, settings: Mapping[str, Setting]
) -> dict[str, Any]:
    context = click.Context(command, info_name=name)
    defaults = {}
    for setting in settings.values():
        found = file.find(name, setting.name)
        if found and setting.option is not None and setting.option.name is not None:
            value, place = found
            try:
                defaults[setting.option.name] = _convert(setting, setting.option, value, context)
            except click.BadParameter as error:
                raise BadSettings(f"{place}: {setting.name} {error.message.rstrip('.')}") from error
    return defaults


def _convert(setting: Setting, option: click.Option, value: object, context: click.Context) -> Any:
    """Return the value as click takes it. Raises click.BadParameter."""
    needed = _describe_needed(option)
    if not _has_type(option, value):
        shown = "this value" if setting.is_secret else repr(value)
        raise click.BadParameter(f"has to be {needed}, not {shown}")
    converted = str(value) if needed == _TEXT else value
    try:
        option.type_cast_value(context, converted)
    except click.BadParameter as error:
        problem = f"cannot be used for {context.info_name}: {error.message.rstrip('.')}"
        raise click.BadParameter(f"{problem}; correct it, or write it below the [command] that it is for") from error
    return converted


def _describe_needed(option: click.Option) -> str:
    """Say which type of TOML an option takes. A text may be a whole number without quotes, such as max-rejected = 5."""
    if option.is_flag:
        return _FLAG
    if option.multiple:
        return _LIST
    if isinstance(option.type, type(click.INT)):
        return _INTEGER
    return _NUMBER if isinstance(option.type, type(click.FLOAT)) else _TEXT


def _has_type(option: click.Option, value: object) -> bool:
    needed = _describe_needed(option)
    if isinstance(value, bool) and needed != _FLAG:
        return False
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return False
    return isinstance(value, _TYPES[needed])


def _check_names(file: SettingsFile, commands: _Commands, settings: Mapping[str, Mapping[str, Setting]]) -> None:
    everything = {name: command for command, own in settings.items() for name in own}
    for name in file.shared:
        if name not in everything and name not in WITHOUT_OPTION:
            raise BadSettings(f"{file.place()}: {_explain_unknown(name, everything, commands)}")
    for table, values in file.tables.items():
        if table not in commands:
            advice = suggest(table, commands) or "; name a table for a command, such as [ingest] or [serve]"
            raise BadSettings(f"{file.place(table)}: there is no command {table!r}{advice}")
        for name in values:
            if name not in settings[table]:
                raise BadSettings(f"{file.place(table)}: {_explain_misplaced(name, table, settings, commands)}")


def _explain_unknown(name: str, everything: Mapping[str, str], commands: _Commands) -> str:
    if name in commands:
        return f"{name} is a command; write its settings below a line [{name}]"
    if any(name in map(option_name, command.params) for command in commands.values()):
        return _explain_per_call(name)
    names = sorted([*everything, *WITHOUT_OPTION])
    advice = suggest(name, names) or f"; there are {', '.join(names)}"
    return f"there is no setting {name!r}{advice}"


def _explain_misplaced(
    name: str, table: str, settings: Mapping[str, Mapping[str, Setting]], commands: _Commands
) -> str:
    if name in map(option_name, commands[table].params):
        return _explain_per_call(name)
    if name in WITHOUT_OPTION:
        return f"{name} is for all commands; write it at the top, above the tables"
    others = [command for command, own in settings.items() if name in own]
    if others:
        return f"{name!r} is not a setting of {table}, but of {', '.join(others)}"
    nearest = suggest(name, settings[table]) or f"; it has {', '.join(sorted(settings[table])) or 'none'}"
    return f"there is no setting {name!r} of {table}{nearest}"


def _explain_per_call(name: str) -> str:
    return f"{name} cannot be set in a file, since each call is about something else; pass it on the command line"
