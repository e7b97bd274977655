"""`lookalike up`: run the whole system on this machine until it is interrupted."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.schema.errors import BadSettings
from lookalike.schema.settings import check_collection, complete_files, setting_option
from lookalike.stack.options import UpOptions

if TYPE_CHECKING:
    from lookalike.stack.data_dir import DataDir
    from lookalike.stack.process import ProcessSpec

_API_PORT, _MILVUS_PORT = 8000, 19530


@click.command()
@setting_option(
    "--catalogue",
    metavar="SOURCE",
    shell_complete=complete_files,
    help="Keep the collection equal to this folder or manifest.",
)
@setting_option(
    "--every", default=30, show_default=True, type=click.IntRange(1), help="Seconds between two ingest runs."
)
@setting_option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=Path("lookalike-stack"),
    show_default=True,
    help="Folder for all data and logs.",
)
@setting_option("--port", type=click.IntRange(1, 65_535), help="Port of the API.  [default: 8000, or a free one]")
@setting_option(
    "--milvus-port", type=click.IntRange(1, 65_535), help="Port of Milvus.  [default: 19530, or a free one]"
)
@setting_option(
    "--milvus",
    type=click.Choice(["server", "lite"]),
    help="A Milvus server or a Milvus Lite server.  [default: what the folder holds, else a server if installed]",
)
@setting_option("--collection", "-c", default="products", show_default=True, help="Collection name.")
@click.argument("ingest_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- INGEST OPTIONS]")
def up(**options: Any) -> None:
    """Start Milvus, the API and, with --catalogue, a worker that follows it, as processes on this machine.

    Arguments after `--` are passed to `lookalike ingest`. LOOKALIKE_ variables apply to all processes. A process that
    exits is restarted; one that keeps exiting stops the stack. Ctrl-C or SIGTERM stops the processes one by one.
    """
    start_stack(UpOptions(**options))


def start_stack(options: UpOptions) -> None:
    """Lock the folder, choose ports, and run the processes until the user stops them.

    Raises BadSettings, AlreadyRunning and ProcessFailed.
    """
    if os.name != "posix":
        raise BadSettings("lookalike up runs on Linux and macOS; on Windows use WSL or Docker")
    if options.ingest_options and not options.catalogue:
        raise BadSettings(f"{' '.join(options.ingest_options)!r} needs a --catalogue; add one")
    from lookalike.stack.data_dir import DataDir
    from lookalike.stack.supervisor import run_processes

    data_dir = DataDir(options.folder)
    with data_dir.lock() as lock_fd:
        milvus_port = _choose_port("--milvus-port", options.milvus_port, _MILVUS_PORT)
        api_port = _choose_port("--port", options.port, _API_PORT)
        specs = _list_processes(options, data_dir, milvus_port, api_port)
        milvus, api = (f"http://127.0.0.1:{port}" for port in (milvus_port, api_port))
        hint = f"All processes are ready. In another shell: export MILVUS_URI={milvus}; lookalike doctor --api {api}"
        run_processes(specs, data_dir, lock_fd, hint)


def _list_processes(options: UpOptions, data_dir: "DataDir", milvus_port: int, api_port: int) -> "list[ProcessSpec]":
    """Describe the processes, each after those that it needs."""
    from lookalike.stack.process_specs import describe_api, describe_milvus, describe_worker

    collection = check_collection(options.collection)
    store = ["--uri", f"http://127.0.0.1:{milvus_port}", "--token", "", "--collection", collection]
    specs = [describe_milvus(data_dir.choose_milvus(options.milvus), data_dir, milvus_port)]
    if options.catalogue:
        specs.append(describe_worker(options.catalogue, options.every, store, options.ingest_options))
    return [*specs, describe_api(api_port, data_dir, store)]


def _choose_port(flag: str, requested: int | None, default: int) -> int:
    """Return the requested port, else the default one, or a free one if that is taken.

    Raises BadSettings if the requested port is taken.
    """
    from lookalike.stack.milvus import find_free_port

    port = find_free_port(requested or default)
    if requested and port != requested:
        raise BadSettings(f"{flag} {requested} is already in use; leave the option out to get a free port")
    return port
