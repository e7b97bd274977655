"""Write the table in docs/settings.md from the options of the commands: `python docs/write_settings.py`."""

from pathlib import Path

import click

from lookalike.cli import main
from lookalike.config.setting import WITHOUT_OPTION, Setting, collect_settings, list_commands

PAGE = Path(__file__).parent / "settings.md"
_START, _END = "<!-- The table is written by `make docs`. -->\n\n", "\n<!-- The table ends here. -->\n"
_HEAD = "| setting | variable | default | commands | meaning |\n|---|---|---|---|---|\n"


def write_page() -> str:
    """Return the page with a new table."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_START)
    _, end, after = rest.partition(_END)
    if not end:
        raise SystemExit(f"{PAGE} has lost the marks around its table; restore them")
    return before + _START + _write_table() + _END + after


def _write_table() -> str:
    settings = collect_settings(list_commands(click.Context(main)))
    rows: dict[str, list[str]] = {}
    for command, own in settings.items():
        for setting in own.values():
            rows.setdefault(_row(setting), []).append(command)
    lines = [row.replace("COMMANDS", _join(commands)) for row, commands in rows.items()]
    lines += [_row(setting).replace("COMMANDS", "all") for setting in WITHOUT_OPTION.values()]
    return _HEAD + "".join(sorted(lines))


def _row(setting: Setting) -> str:
    variables = ", ".join(f"`{variable}`" for variable in setting.variables)
    cells = (f"`{setting.name}`", variables, _describe_default(setting), "COMMANDS", setting.help.strip())
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _describe_default(setting: Setting) -> str:
    if setting.default_text:
        return setting.default_text
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return "" if setting.default in (None, "") else f"`{setting.default}`"


def _join(commands: list[str]) -> str:
    return ", ".join(commands)


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
