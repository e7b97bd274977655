"""Every option is either a setting, with a variable that its help names, or what one call is about."""

import importlib
import re
import sys
from pathlib import Path

import click
import pytest
from command import ROOT, lookalike

from lookalike.cli import COMMANDS, main
from lookalike.config.setting import OTHER_VARIABLES, WITHOUT_OPTION, list_commands, list_settings, option_name

# What one call is about: what it looks for or deletes, whether it really does, what it draws, how it prints.
PER_CALL = {
    *("text", "product", "unlike", "where", "limit", "offset", "min-score", "within"),
    *("threshold", "recall", "queries", "to", "drop"),
    *("dry-run", "yes", "prune", "prune-unreadable", "move-source", "rename", "remove", "within-products"),
    *("format", "json", "sheet", "plot", "profile"),
}
# `reindex --encoder` says where to move: a variable for new collections must not move one.
PER_CALL_OF = {"reindex": {"encoder"}}

ALL = list_commands(click.Context(main))


def test_all_commands_are_known() -> None:
    assert list(ALL) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_a_setting_or_about_one_call(name: str) -> None:
    settings = list_settings(ALL[name])
    options = {option_name(option) for option in ALL[name].params if isinstance(option, click.Option)}
    per_call = options - set(settings)
    unexpected = per_call - PER_CALL - PER_CALL_OF.get(name, set())
    assert not unexpected, f"make {unexpected} with setting_option, or list them here"
    assert not PER_CALL.intersection(settings)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_names_the_variable_of_each_setting(name: str, tmp_path: Path) -> None:
    shown = lookalike(name, "--help", cwd=tmp_path, COLUMNS="500").stdout.decode()
    for setting in list_settings(ALL[name]).values():
        assert setting.variables[0] == "LOOKALIKE_" + setting.name.replace("-", "_").upper()
        for variable in setting.variables:
            assert re.search(rf"\b{variable}\b", shown), variable


def test_every_variable_in_the_docker_files_is_known() -> None:
    known = {variable for setting in WITHOUT_OPTION.values() for variable in setting.variables}
    known |= {variable for command in ALL.values() for s in list_settings(command).values() for variable in s.variables}
    files = [file for file in (ROOT / "docker").rglob("*") if file.is_file()]
    named = {name for file in files for name in re.findall(r"LOOKALIKE_[A-Z_]*[A-Z]", file.read_text(errors="replace"))}
    assert len(named) > 8
    assert named <= known | set(OTHER_VARIABLES)


def test_the_page_of_settings_lists_them_all() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    write_settings = importlib.import_module("write_settings")
    assert (ROOT / "docs" / "settings.md").read_text() == write_settings.write_page(), "run `make docs`"
