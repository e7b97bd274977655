"""`lookalike up`: everything on this machine, until it is told to end."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.schema.errors import BadSettings
from lookalike.schema.settings import check_collection, setting

if TYPE_CHECKING:
    from lookalike.stack.data_dir import DataDir
    from lookalike.stack.process import ProcessSpec

_API_PORT, _MILVUS_PORT = 8000, 19530


@click.command()
@click.option("--catalogue", metavar="SOURCE", help="Keep the collection equal to it: a folder or a manifest.")
@setting("--every", default=30, show_default=True, type=click.IntRange(1), help="Seconds between two looks at it.")
@setting(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=Path("lookalike-stack"),
    show_default=True,
    help="Where all data and logs are.",
)
@setting("--port", type=click.IntRange(1, 65_535), help="The API's.  [default: 8000, or a free one]")
@setting("--milvus-port", type=click.IntRange(1, 65_535), help="Milvus's.  [default: 19530, or a free one]")
@setting(
    "--milvus",
    type=click.Choice(["server", "lite"]),
    help="A Milvus server or Milvus Lite's.  [default: what the folder has, or the server where it is installed]",
)
@setting("--collection", "-c", default="products", show_default=True, help="Collection name.")
@click.argument("ingest_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- INGEST OPTIONS]")
def up(**options: Any) -> None:
    """Start Milvus, the API and, for a catalogue, a worker that follows it, as processes on this machine.

    What follows `--` goes to `lookalike ingest`; every LOOKALIKE_ variable holds for all of them. A process that dies
    is started again; one that does not stay up ends everything. Ends on Ctrl-C or SIGTERM, one process after the other.
    """
    if os.name != "posix":
        raise BadSettings("lookalike up runs on Linux and macOS; on Windows take its Linux (WSL), or Docker")
    if options["ingest_options"] and not options["catalogue"]:
        raise BadSettings(f"{' '.join(options['ingest_options'])!r} is for a --catalogue; name one")
    from lookalike.stack.data_dir import DataDir
    from lookalike.stack.supervisor import run

    folder = DataDir(options["folder"])
    with folder.held() as lock:
        ports = (
            _port("--milvus-port", options["milvus_port"], _MILVUS_PORT),
            _port("--port", options["port"], _API_PORT),
        )
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        hint = "All is up. In another shell: export MILVUS_URI={}; lookalike doctor --api {}".format(*addresses)
        run(_plans(folder, ports, options), folder, lock, hint)


def _plans(folder: "DataDir", ports: tuple[int, int], options: dict[str, Any]) -> "list[ProcessSpec]":
    """What is to run, in the order in which one needs the other."""
    from lookalike.stack import process_specs as plans

    collection = check_collection(options["collection"])
    place = ["--uri", f"http://127.0.0.1:{ports[0]}", "--token", "", "--collection", collection]
    planned = [plans.milvus(folder.choose(options["milvus"]), folder, ports[0])]
    if options["catalogue"]:
        planned.append(plans.worker(options["catalogue"], options["every"], place, options["ingest_options"]))
    return [*planned, plans.api(ports[1], folder, place)]


def _port(flag: str, wanted: int | None, usual: int) -> int:
    """The port that was asked for, else the usual one, or a free one where that is taken."""
    from lookalike.stack.milvus import free_port

    port = free_port(wanted or usual)
    if wanted and port != wanted:
        raise BadSettings(f"{flag} {wanted}: something listens there already; leave it out, and a free one is taken")
    return port
