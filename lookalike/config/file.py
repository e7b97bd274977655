"""The settings file: `lookalike.toml`, or `[tool.lookalike]` in `pyproject.toml`."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.schema.errors import BadSettings

FILE = "lookalike.toml"
PROJECT_FILE = "pyproject.toml"


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The values of a settings file, by the names of settings: for all commands, and for each command."""

    path: str
    prefix: str
    """Where the settings are in the file: "tool.lookalike" or nothing."""

    shared: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]

    def place(self, command: str | None = None) -> str:
        """Name the file and the table of a command, or the part for all commands."""
        table = ".".join(filter(None, (self.prefix, command)))
        return f"{self.path} [{table}]" if table else self.path

    def find(self, command: str, name: str) -> tuple[Any, str] | None:
        """Return the value of a setting for a command, and its place: the command's own table wins."""
        own = self.tables.get(command, {})
        if name in own:
            return own[name], self.place(command)
        return (self.shared[name], self.place()) if name in self.shared else None


def find_settings_file(chosen: str | None) -> SettingsFile | None:
    """Read the chosen file, or the one in the working directory if there is one. Raises BadSettings."""
    if chosen:
        return _read(Path(chosen))
    in_project = _read_project()
    if not os.path.lexists(FILE):
        return in_project
    if in_project:
        raise BadSettings(f"{FILE} and {in_project.place()} both have settings; keep one of them")
    return _read(Path(FILE))


def _read(path: Path) -> SettingsFile:
    content = _load(path, _read_text(path))
    if path.name != PROJECT_FILE:
        return _to_settings_file(path, "", content)
    file = _find_own_table(path, content)
    if file is None:
        raise BadSettings(f"{path} has no table [tool.lookalike]; add it, or name another settings file")
    return file


def _read_project() -> SettingsFile | None:
    """Read `pyproject.toml` if it has our table. Without the word it is not parsed: it may be of any project."""
    path = Path(PROJECT_FILE)
    text = _read_text(path) if path.is_file() else ""
    return _find_own_table(path, _load(path, text)) if "lookalike" in text else None


def _find_own_table(path: Path, content: Mapping[str, Any]) -> SettingsFile | None:
    tool = content.get("tool")
    if not isinstance(tool, dict) or "lookalike" not in tool:
        return None
    return _to_settings_file(path, "tool.lookalike", tool["lookalike"])


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadSettings(f"the settings file {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadSettings(f"the settings file {str(path)!r} is not UTF-8; save it as UTF-8") from error


def _load(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadSettings(f"the settings file {str(path)!r} is not valid TOML: {error}") from error


def _to_settings_file(path: Path, prefix: str, content: object) -> SettingsFile:
    if not isinstance(content, dict):
        raise BadSettings(f"{path}: {prefix} is not a table")
    bare = SettingsFile(str(path), prefix, {}, {})
    top = _normalize(content, bare.place())
    tables = {name: _normalize(table, bare.place(name)) for name, table in top.items() if isinstance(table, dict)}
    shared = {name: value for name, value in top.items() if not isinstance(value, dict)}
    return SettingsFile(str(path), prefix, shared, tables)


def _normalize(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Write each key with dashes. Raises BadSettings for a key that is there in both spellings."""
    normalized: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if name in normalized:
            raise BadSettings(f"{place}: {name} is set twice, with - and with _; keep one")
        normalized[name] = value
    return normalized
