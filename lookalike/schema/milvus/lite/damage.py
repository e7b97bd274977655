"""Find the damage of a Milvus Lite folder before Milvus Lite opens it.

Milvus Lite opens a folder that lacks files without an error, and then deletes the files that it does not know.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lookalike.schema.errors import StoreUnavailable

ADVICE = "Nothing was changed. Restore the folder from a backup; or move it away, then import an export or ingest again"
"""What to do about a damaged folder."""

_MOMENT = 0.1
"""Seconds after which a folder is looked at again: another process may have been writing to it."""

Partitions = Mapping[str, Sequence[str]]
"""The files with rows, and with the keys of deleted rows, of each partition."""

_MANIFEST_FORMAT = 2
"""The newest format of manifests that is known here: a later Milvus Lite may name its files in another way."""

_VERSION_NAME = re.compile(r".+__v\d+_[0-9a-f]{8}")


def require_intact(uri: str) -> None:
    """Raise StoreUnavailable when files of a Milvus Lite folder are missing, or cannot be read.

    The rows themselves are not checked: Milvus Lite stores no checksums.
    """
    folder = Path(uri)
    if _find_damage(folder) is not None:
        time.sleep(_MOMENT)
    damage = _find_damage(folder)
    if damage is not None:
        raise StoreUnavailable(f"the store {uri} is damaged: {damage}. {ADVICE}")


def _find_damage(folder: Path) -> str | None:
    """Return the first damage, None for an intact folder and for none at all."""
    try:
        return next(_list_damage(folder), None)
    except FileNotFoundError:  # another process has just dropped a collection
        return None
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"


def _list_damage(folder: Path) -> Iterator[str]:
    partitions = {}
    for collection in sorted((folder / "collections").glob("*/")):
        schema, manifest = collection / "schema.json", collection / "manifest.json"
        # Without a schema, dropping the collection was interrupted: Milvus Lite ignores what is left of it.
        if not schema.exists():
            continue
        if manifest.exists():
            partitions[collection.name] = _read_partitions(manifest)
            yield from _list_missing_files(collection, partitions[collection.name])
        elif _had_manifest(collection):
            yield f"{manifest} is missing"
        if _read_object(schema) is None:
            yield f"{schema} is not valid JSON"
    yield from _list_alias_damage(folder / "aliases.json", partitions)


def _had_manifest(collection: Path) -> bool:
    """Return whether a manifest was written: the first one replaces the first log."""
    has_rows = any(collection.glob("partitions/*/*/*.parquet"))
    return (collection / "manifest.json.prev").exists() or (has_rows and not any(collection.glob("wal/*_000001.arrow")))


def _list_missing_files(collection: Path, partitions: Partitions | None) -> Iterator[str]:
    if partitions is None:
        yield f"{collection / 'manifest.json'} cannot be understood"
        return
    for partition, names in partitions.items():
        for path in (collection / "partitions" / partition / name for name in names):
            if not path.exists():
                yield f"{path} is missing"


def _list_alias_damage(aliases: Path, collections: Mapping[str, Partitions | None]) -> Iterator[str]:
    """List what the aliases lack: each points to a version, and a version with rows has one."""
    if aliases.exists():
        versions = _read_object(aliases)
        if versions is None:
            yield f"{aliases} is not valid JSON"
        for version in filter(_is_version, (versions or {}).values()):
            schema = aliases.with_name("collections") / version / "schema.json"
            if not schema.exists():
                yield f"{schema} is missing"
        return
    for name, files in collections.items():
        if _is_version(name) and any((files or {}).values()):
            yield f"{aliases} is missing, and with it which version of {name.rpartition('__v')[0]!r} is live"


def _is_version(name: Any) -> bool:
    return isinstance(name, str) and _VERSION_NAME.fullmatch(name) is not None


def _read_partitions(manifest: Path) -> Partitions | None:
    """Read which files each partition has, none of a newer format; None when the manifest does not say."""
    content = _read_object(manifest) or {}
    version = content.get("manifest_format_version")
    if isinstance(version, int) and version > _MANIFEST_FORMAT:
        return {}
    try:
        partitions = content["partitions"]
        return {name: [*files["data_files"], *files["delta_files"]] for name, files in partitions.items()}
    except (KeyError, TypeError, AttributeError):
        return None


def _read_object(file: Path) -> dict[str, Any] | None:
    """Read a JSON object; None when the file holds none."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
