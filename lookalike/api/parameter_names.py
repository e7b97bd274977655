"""Error messages of the API name the parameters of Python, not the options of the command line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lookalike.schema.errors import LookalikeError

_PARAMETERS = {
    "--allow-private-urls": "allow_private_urls=True",
    "--collection": "collection",
    "--column": "columns",
    "--decimal-comma": "decimal_comma=True",
    "--device": "device",
    "--dtype": "dtype",
    "--encoder": "encoder",
    "--engine": "engine",
    "--field": "fields",
    "--layout": "layout",
    "--max-rejected": "max_rejected",
    "--max-removals": "max_removals",
    "--move-source": "move_source",
    "--null-value": "null_values",
    "--prune": "prune",
    "--report": "report",
    "--source-name": "source_name",
    "--strip-currency": "strip_currency=True",
    "--thousands": "thousands=True",
    "--token": "token",
    "--uri": "uri",
}

# A command to run keeps its options: from `lookalike VERB` to the end of the clause, or several options in a row.
_COMMAND = r"lookalike [a-z]+.*?(?=[.;,:)](?:\s|$)|$)|--[\w-]+ --[\w-]+"
_OPTION = r"(?<![\w-])--[a-z-]+"
_FIELD = r"--field '?(?P<column>[^:']+):(?P<type>text|int|float|bool|list|TYPE)\b'?"
_COLUMN = r"--column (?:'([^']*)'|([\w=-]+))"
_NULL_VALUE = r"--null-value ('[^']*')"
_COMMAND_OR_OPTION = re.compile(
    rf"(?P<field>{_FIELD})|(?P<columns>{_COLUMN}(?: {_COLUMN})*)|(?P<nulls>{_NULL_VALUE}(?: {_NULL_VALUE})*)"
    rf"|(?P<command>{_COMMAND})|(?P<option>{_OPTION})",
    re.DOTALL,
)


@contextmanager
def name_parameters() -> Iterator[None]:
    """Change the message of a LookalikeError that is raised inside, and raise it again."""
    try:
        yield
    except LookalikeError as error:
        error.args = (replace_options(str(error)),)
        raise


def replace_options(message: str) -> str:
    """Replace the options in a message by the parameters that they are in Python; leave commands as they are."""
    return _COMMAND_OR_OPTION.sub(_replace, message)


def _replace(match: re.Match[str]) -> str:
    if match["field"]:
        return f'fields={{"{match["column"]}": "{match["type"]}"}}'
    if match["columns"]:
        pairs = [(quoted or plain).partition("=") for quoted, plain in re.findall(_COLUMN, match["columns"])]
        items = ", ".join(f'"{name}": "{column}"' for name, _, column in pairs)
        return f"columns={{{items}}}"
    if match["nulls"]:
        return f"null_values=[{', '.join(re.findall(_NULL_VALUE, match['nulls']))}]"
    option = match["option"]
    return _PARAMETERS.get(option, option) if option else match[0]
