"""The command `lookalike`: one group; a verb, and all that it needs, is imported when it is called."""

import importlib
import sys
from typing import Any

import click

try:
    from encode.machine import keep_freed_memory
    from schema.errors import (
        BadFilter,
        BadImage,
        BadQuery,
        BadSettings,
        BadSource,
        HeldBack,
        LookalikeError,
        UnknownProduct,
    )
    from schema.settings import read_env_file
except ImportError as error:
    # PyPI has a package `schema`; where that comes first, not even the doctor can be imported.
    sys.exit(
        f"Error: lookalike does not load: {error}. Where that is a package of lookalike, another distribution has "
        "taken its name: uninstall that (pip uninstall schema), and install lookalike again"
    )

__version__ = "0.1.0"

VERBS = {
    "ingest": "ingest.cli:ingest",
    "search": "search.cli:search",
    "serve": "serve.cli:serve",
    "up": "stack.cli:up",
    "doctor": "stack.doctor:doctor",
    "info": "search.cli:info",
    "duplicates": "search.cli:duplicates",
    "delete": "ingest.upkeep:delete",
    "reindex": "ingest.upkeep:reindex",
    "rollback": "ingest.upkeep:rollback",
    "versions": "ingest.upkeep:versions",
    "export": "ingest.upkeep:export_rows",
    "import": "ingest.upkeep:import_rows",
    "tune": "search.tune:tune",
    "sample": "ingest.cli:sample",
    "encoders": "encode.cli:encoders",
}

_INTERRUPTED = 130
_ASKED_WRONGLY = (BadSettings, BadSource, BadQuery, BadFilter, BadImage, UnknownProduct)


class Verbs(click.Group):
    """Finds a verb's command in its own module, and turns our errors into messages and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order in which a newcomer meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        if cmd_name not in VERBS:
            return None
        module, name = VERBS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb. Exit status 2 when it was asked wrongly, 3 past a limit, 1 when something has failed."""
        keep_freed_memory()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)
        except LookalikeError as error:
            click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(str(error), err=True)
            ctx.exit(_status(error))


def _status(error: LookalikeError) -> int:
    if isinstance(error, HeldBack):
        return 3
    return 2 if isinstance(error, _ASKED_WRONGLY) else 1


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lookalike")
def main() -> None:
    """Find similar products by picture.

    Fill a collection with `lookalike ingest FOLDER`, ask it with `lookalike search PICTURE`.
    Settings also come from the environment and from `.env`.
    """
    read_env_file()


if __name__ == "__main__":
    sys.exit(main(prog_name="lookalike"))
