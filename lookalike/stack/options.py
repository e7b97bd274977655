"""What the user chose on the command line, typed."""

from dataclasses import dataclass
from pathlib import Path

from lookalike.stack.data_dir import MilvusKind


@dataclass(frozen=True, slots=True)
class UpOptions:
    """The options of `lookalike up`, by the names that click gives them."""

    catalogue: str | None
    every: int
    folder: Path
    port: int | None
    milvus_port: int | None
    milvus: MilvusKind | None
    collection: str
    ingest_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What `lookalike doctor` checks: a collection in a Milvus and, if `api` is set, the service at that address."""

    uri: str
    token: str
    collection: str
    api: str | None = None
