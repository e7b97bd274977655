"""What can be set, from the command line, the environment or a `.env` file; read once, at the edge."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import click
from dotenv import load_dotenv

from lookalike.schema.errors import BadSettings

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_URI = "./lookalike.db"

LOCAL_ENGINES = ("auto", "torch", "onnx", "compile")
ALL_ENGINES = (*LOCAL_ENGINES, "ray")
_ENGINES = {
    LOCAL_ENGINES: "What runs it on a CPU; auto measures once which is faster. compile: torch.compile, where many are encoded.",
    ALL_ENGINES: "What runs it on a CPU; auto measures once which is faster. compile: torch.compile, for large loads; "
    "ray: a cluster reads, decodes and runs it.",
}

_SERVER_SCHEMES = ("http://", "https://", "tcp://", "unix:")
# 2.3 servers refuse anything else; the rest of the 255 allowed characters is for the version suffix.
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


def read_env_file() -> None:
    """Add the settings of `./.env` to the environment; what is already set wins."""
    try:
        load_dotenv(Path(".env"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"the file .env cannot be read: {error}") from error


def setting(flag: str, *more: str, **options: Any) -> Callable[[Command], Command]:
    """Make a command-line option that can also be set as LOOKALIKE_<FLAG>."""
    envvar = options.pop("envvar", [])
    own = "LOOKALIKE_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *more, envvar=[own, *envvar], show_envvar=True, **options)


def store_options(command: Command) -> Command:
    """Add the options that say where the collection is: --uri, --token, --collection."""
    for add in (
        setting(
            "--collection", "-c", default="products", show_default=True, callback=_collection, help="Collection name."
        ),
        setting(
            "--token",
            envvar=["MILVUS_TOKEN"],
            default="",
            callback=_token,
            help="Milvus token, as user:password or an API key.",
        ),
        setting(
            "--uri",
            envvar=["MILVUS_URI"],
            default=DEFAULT_URI,
            show_default=True,
            callback=_uri,
            help="A Milvus Lite folder ending in .db, or a server such as http://localhost:19530.",
        ),
    ):
        command = add(command)
    return command


def encoder_options(command: Command, engines: tuple[str, ...] = LOCAL_ENGINES) -> Command:
    """Add the options that say where the network runs, and by which of `engines`: --device, --dtype, --engine."""
    command = setting(
        "--engine",
        type=click.Choice(engines),
        default="auto",
        show_default=True,
        help=_ENGINES[engines],
    )(command)
    command = setting(
        "--dtype",
        type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Precision of the network; auto is half precision on a CUDA device only.",
    )(command)
    return setting(
        "--device",
        default="auto",
        show_default=True,
        help="Where the network runs: auto, cpu, cuda (all GPUs), cuda:1, cuda:0,cuda:1, mps, …",
    )(command)


def is_lite(uri: str) -> bool:
    """Tell whether `uri` names an embedded Milvus Lite store rather than a server."""
    return not uri.startswith(_SERVER_SCHEMES)


def check_uri(uri: str) -> str:
    """Return `uri`, or raise BadSettings when neither Milvus Lite nor a server can be meant."""
    if not is_lite(uri):
        return uri
    path = Path(uri)
    if path.suffix != ".db" or uri.endswith("/"):
        raise BadSettings(
            f"--uri {uri!r} is neither a Milvus Lite store (a path ending in .db) nor a server (http://host:19530)"
        )
    try:
        problem = _lite_problem(path)
    except OSError as error:
        problem = f"cannot be looked at: {error.strerror}"
    if problem:
        raise BadSettings(f"--uri {uri!r} {problem}")
    return uri


def _lite_problem(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"is in a folder {str(path.parent)!r} that does not exist; make it first"
    if not path.exists():
        return None
    if not path.is_dir():
        return "is a file, but Milvus Lite 3 keeps a folder there; move the file away or name another path"
    return None if os.access(path, os.W_OK) else "cannot be written to; Milvus Lite needs that even to search"


def check_collection(name: str) -> str:
    """Return `name`, or raise BadSettings when Milvus would refuse it as a collection name."""
    if not _COLLECTION_NAME.fullmatch(name):
        raise BadSettings(
            f"--collection {name!r} is no collection name: take letters, digits and _, "
            "not starting with a digit, at most 200"
        )
    return name


def _uri(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    return check_uri(value)


def _collection(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    return check_collection(value)


def _token(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not value.isascii():
        raise BadSettings("--token holds characters that no Milvus token has")
    return value
