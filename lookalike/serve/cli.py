"""`lookalike serve`: the HTTP service and its page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.encode.image_limits import MAX_PIXELS
from lookalike.encode.options import EngineConfig, batch_options, check_encoder_option
from lookalike.schema.errors import BadSettings
from lookalike.schema.settings import CollectionAddress, setting_option, store_options

if TYPE_CHECKING:
    from lookalike.serve.settings import Settings

_MEGABYTE = 2**20


@click.command()
@setting_option("--host", default="127.0.0.1", show_default=True, help="Address; any but loopback needs API keys.")
@setting_option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65_535), help="Port; 0 takes a free one."
)
@store_options
@batch_options
@setting_option(
    "--encoder", callback=check_encoder_option, help="Another name or directory of the collection's encoder."
)
@setting_option(
    "--max-in-flight", default=128, show_default=True, type=click.IntRange(1), help="More requests get a 429."
)
@setting_option(
    "--max-body", default=25, show_default=True, type=click.IntRange(1, 1024), help="Megabytes of a request."
)
@setting_option(
    "--deadline",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.1, 600),
    help="Seconds after which a request gets a 504.",
)
@setting_option("--wait", is_flag=True, help="Wait until the collection exists.")
@setting_option("--fetch-urls", is_flag=True, help="Fetch image_url of requests, from public addresses.")
@setting_option(
    "--allow-private-urls",
    is_flag=True,
    help="Show images of the collection also from URLs on a private network; image_url of requests never leads there.",
)
@setting_option(
    "--uploads",
    type=click.Path(path_type=Path),
    default=Path("lookalike-uploads"),
    show_default=True,
    help="Folder for images that are uploaded with a product.",
)
def serve(**options: Any) -> None:
    """Serve searches over HTTP, and a page for the browser.

    API keys are read from LOOKALIKE_API_KEYS: `key, key:write, …`. Ctrl-C or SIGTERM ends the service after the
    requests that have begun.
    """
    settings = _read_settings(options)
    from lookalike.serve.server import ServerOptions, run

    run(
        settings,
        ServerOptions(
            address=CollectionAddress.from_click(options),
            encoder=options["encoder"],
            engine=EngineConfig.from_click(options),
            port=options["port"],
            wait=options["wait"],
        ),
    )


def _read_settings(options: dict[str, Any]) -> "Settings":
    """Raises BadSettings for a service that is open to others without API keys."""
    from lookalike.serve.settings import Keys, Settings, is_loopback

    keys = Keys.parse(os.environ.get("LOOKALIKE_API_KEYS", ""))
    if not keys.required and not is_loopback(options["host"]):
        raise BadSettings(
            f"--host {options['host']} is open to others: set LOOKALIKE_API_KEYS to `key, key:write, …` first, "
            "or listen at 127.0.0.1"
        )
    return Settings(
        keys=keys,
        host=options["host"],
        max_body=options["max_body"] * _MEGABYTE,
        max_pixels=options["max_pixels"] or MAX_PIXELS,
        max_in_flight=options["max_in_flight"],
        deadline=options["deadline"],
        fetch_urls=options["fetch_urls"],
        allow_private_urls=options["allow_private_urls"],
        uploads=options["uploads"],
    )
