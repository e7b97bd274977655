"""The command `lookalike`: one group of subcommands; each is imported only when it is called."""

import importlib
from typing import Any

import click

from lookalike import __version__
from lookalike.config.sources import ASKS_FOR_HELP, read_sources
from lookalike.encode.process_tuning import keep_freed_memory
from lookalike.schema.errors import (
    BadFilter,
    BadImage,
    BadQuery,
    BadSettings,
    BadSource,
    LimitExceeded,
    LookalikeError,
    UnknownProduct,
)
from lookalike.schema.settings import setting_option
from lookalike.schema.spelling import find_nearest

COMMANDS = {
    "ingest": "lookalike.ingest.cli:ingest",
    "search": "lookalike.search.cli:search",
    "serve": "lookalike.serve.cli:serve",
    "up": "lookalike.stack.cli:up",
    "doctor": "lookalike.stack.doctor:doctor",
    "info": "lookalike.search.cli:info",
    "duplicates": "lookalike.search.cli:duplicates",
    "delete": "lookalike.ingest.admin.cli:delete",
    "sources": "lookalike.ingest.admin.sources_cli:sources",
    "reindex": "lookalike.ingest.admin.cli:reindex",
    "rollback": "lookalike.ingest.admin.cli:rollback",
    "versions": "lookalike.ingest.admin.cli:versions",
    "export": "lookalike.ingest.admin.cli:export_rows",
    "import": "lookalike.ingest.admin.cli:import_rows",
    "tune": "lookalike.search.tuning.cli:tune",
    "sample": "lookalike.ingest.cli:sample",
    "encoders": "lookalike.encode.cli:encoders",
    "config": "lookalike.config.cli:config",
    "completion": "lookalike.config.cli:completion",
}

_INTERRUPTED = 130
_USAGE_ERRORS = (BadSettings, BadSource, BadQuery, BadFilter, BadImage, UnknownProduct)


class LazyGroup(click.Group):
    """Imports a subcommand from its own module, and turns our errors into messages and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands, in the order in which a new user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether this call only asks for help."""
        ctx.meta[ASKS_FOR_HELP] = not {"-h", "--help"}.isdisjoint(args)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; name the nearest one when there is none."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            nearest = find_nearest(name, COMMANDS)
            advice = f"Did you mean {nearest!r}?" if nearest else f"There are {', '.join(COMMANDS)}."
            ctx.fail(f"No such command {name!r}. {advice}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. Exit status 2 for invalid usage, 3 if a limit was exceeded, 1 for other errors."""
        keep_freed_memory()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(_INTERRUPTED)
        except LookalikeError as error:
            click.secho("Error: ", fg="red", bold=True, nl=False, err=True)
            click.echo(str(error), err=True)
            ctx.exit(exit_status(error))


def exit_status(error: LookalikeError) -> int:
    """Return the exit status for an error: 2 for invalid usage, 3 for a limit that was exceeded, 1 for any other."""
    if isinstance(error, LimitExceeded):
        return 3
    return 2 if isinstance(error, _USAGE_ERRORS) else 1


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lookalike")
@setting_option(
    "--config",
    metavar="FILE",
    type=click.Path(),
    help="Settings file.  [default: lookalike.toml, or [tool.lookalike] in pyproject.toml, in the working directory]",
)
@click.pass_context
def main(context: click.Context, config: str | None) -> None:
    """Find similar products by image.

    Fill a collection with `lookalike ingest FOLDER`, search it with `lookalike search IMAGE`.
    Settings can also come from environment variables, a `.env` file and a settings file; `lookalike config` shows them.
    """
    context.obj = read_sources(context, config)
