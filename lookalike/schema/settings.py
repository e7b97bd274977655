"""Settings from the command line, the environment or a `.env` file, as options of click."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click
from dotenv import load_dotenv

from lookalike.schema.errors import BadSettings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_URI = "./lookalike.db"

LOCAL_ENGINES = ("auto", "torch", "onnx", "compile")
ALL_ENGINES = (*LOCAL_ENGINES, "ray")
_AUTO_ENGINE_HELP = "What runs the encoder on a CPU; auto measures once which is faster."
_ENGINE_HELP = {
    LOCAL_ENGINES: f"{_AUTO_ENGINE_HELP} compile: torch.compile, for many images.",
    ALL_ENGINES: f"{_AUTO_ENGINE_HELP} compile: torch.compile, for many images; "
    "ray: a cluster reads, decodes and encodes.",
}

_SERVER_SCHEMES = ("http://", "https://", "tcp://", "unix:")
# What a 2.3 server accepts. It allows 255 characters; those past 200 are left for the version suffix.
_COLLECTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True, slots=True)
class CollectionAddress:
    """Which collection on which Milvus."""

    uri: str
    token: str
    collection: str

    @classmethod
    def from_click(cls, options: Mapping[str, Any]) -> Self:
        """Take the address from a command's `store_options`."""
        return cls(options["uri"], options["token"], options["collection"])


def read_env_file() -> frozenset[str]:
    """Add the settings in `./.env` to the environment, except those that are already set; return the added names."""
    before = frozenset(os.environ)
    try:
        load_dotenv(Path(".env"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"the file .env cannot be read: {error}") from error
    return frozenset(os.environ) - before


def setting_option(flag: str, *more: str, **options: Any) -> Callable[[Command], Command]:
    """Return a command-line option that can also be set as LOOKALIKE_<FLAG>, or in a settings file.

    Use it for how and where a command works. What one call is about has `click.option`: a query, a dry run, a
    confirmation, a deletion, a file that is drawn, how results are printed.
    """
    envvar = options.pop("envvar", [])
    own = "LOOKALIKE_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *more, envvar=[own, *envvar], show_envvar=True, **options)


def complete_files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Let the shell complete the names of files: for a value that may also be something else."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def store_options(command: Command) -> Command:
    """Add the options that locate the collection: --uri, --token, --collection."""
    for add in (
        setting_option(
            "--collection",
            "-c",
            default="products",
            show_default=True,
            callback=_check_collection,
            help="Collection name.",
        ),
        setting_option(
            "--token",
            envvar=["MILVUS_TOKEN"],
            default="",
            callback=_check_token,
            help="Milvus token, as user:password or an API key.",
        ),
        setting_option(
            "--uri",
            envvar=["MILVUS_URI"],
            default=DEFAULT_URI,
            show_default=True,
            callback=_check_uri,
            shell_complete=complete_files,
            help="A Milvus Lite folder ending in .db, or a server such as http://localhost:19530.",
        ),
    ):
        command = add(command)
    return command


def encoder_options(command: Command, engines: tuple[str, ...] = LOCAL_ENGINES) -> Command:
    """Add the options that choose where and how the encoder runs: --device, --dtype, and --engine, one of `engines`."""
    command = setting_option(
        "--engine",
        type=click.Choice(engines),
        default="auto",
        show_default=True,
        help=_ENGINE_HELP[engines],
    )(command)
    command = setting_option(
        "--dtype",
        type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Precision of the encoder; auto is half precision on a CUDA device only.",
    )(command)
    return setting_option(
        "--device",
        default="auto",
        show_default=True,
        help="Where the encoder runs: auto, cpu, cuda (all GPUs), cuda:1, cuda:0,cuda:1, mps, …",
    )(command)


def is_lite(uri: str) -> bool:
    """Return whether `uri` is a path of Milvus Lite rather than the address of a server."""
    return not uri.startswith(_SERVER_SCHEMES)


def check_uri(uri: str) -> str:
    """Return `uri`, or raise BadSettings when it is neither a path for Milvus Lite nor an address of a server."""
    if not is_lite(uri):
        return uri
    path = Path(uri)
    if path.suffix != ".db" or uri.endswith("/"):
        raise BadSettings(
            f"--uri {uri!r} is neither a Milvus Lite store (a path ending in .db) nor a server (http://host:19530)"
        )
    try:
        problem = _find_path_problem(path)
    except OSError as error:
        problem = f"cannot be accessed: {error.strerror}"
    if problem:
        raise BadSettings(f"--uri {uri!r} {problem}")
    return uri


def _find_path_problem(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"is in a folder {str(path.parent)!r} that does not exist; make it first"
    if not path.exists():
        return None
    if not path.is_dir():
        return "is a file, but Milvus Lite 3 needs a folder; move the file away or name another path"
    return (
        None
        if os.access(path, os.W_OK)
        else "cannot be written to, which Milvus Lite needs even to search; change its permissions"
    )


def check_collection(name: str) -> str:
    """Return `name`, or raise BadSettings when Milvus would refuse it as a collection name."""
    if not _COLLECTION_NAME.fullmatch(name):
        raise BadSettings(
            f"--collection {name!r} is not a collection name: use letters, digits and _, "
            "not starting with a digit, 200 at most"
        )
    return name


def _check_uri(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    return check_uri(value)


def _check_collection(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    return check_collection(value)


def _check_token(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.isascii():
        raise BadSettings("--token has characters that are not ASCII; no Milvus token has those")
    return value
