"""Whether what lookalike works with is there: Milvus, the collection, the encoder's weights, disk, memory, the API."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lookalike.schema.errors import StoreUnreachable
from lookalike.schema.settings import is_lite
from lookalike.stack.finding import Finding

_MEGABYTE = 2**20
_INGEST_BYTES = 1_800 * _MEGABYTE
"""What an ingest with the default encoder took at most with torch (docs/benchmarks.md); ONNX Runtime takes half."""
_API_SECONDS = 30.0
_WITHOUT = {
    "aliases": "no version of a collection can go live without them; take Milvus 2.3 or later, or Milvus Lite",
    "group by": "lookalike groups by product itself",
    "partial update": "lookalike writes whole rows",
    "bulk import": "lookalike upserts",
}


def milvus(asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Milvus, what it can, the collection there and the weights of its encoder."""
    from lookalike.schema.milvus.capabilities import CapabilityProbe, is_locked_by_another, lite_features

    uri, encoder = asked["uri"], None
    lite = is_lite(uri)
    if lite and not Path(uri).exists():
        yield Finding("milvus", "ok", f"Milvus Lite; nothing is at {uri} yet")
        yield _no_collection(asked)
    elif lite and is_locked_by_another(uri):
        yield Finding(
            "milvus",
            "warning",
            f"{uri} is open in another process",
            "if that is lookalike serve, ask it: --api ADDRESS",
        )
    else:
        try:
            with CapabilityProbe.connect(uri, asked["token"]) as probe:
                yield Finding("milvus", "ok", f"{probe.server_version()} at {uri}")
                seen = probe.collection(asked["collection"])
                yield _collection(asked, seen) if seen else _no_collection(asked)
                encoder = seen.fingerprint.encoder if seen and seen.fingerprint else None
                if not lite:
                    yield from _features(probe.features())
        except StoreUnreachable as error:
            yield Finding("milvus", "problem", str(error))
    if lite:
        yield from _features(lite_features())
    yield _weights(encoder)


def disk(asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether there is room to write."""
    from lookalike.schema.milvus.connection import LITE_RESERVE

    folder = Path(asked["uri"]).absolute().parent if is_lite(asked["uri"]) else Path.cwd()
    free = shutil.disk_usage(folder).free
    found = f"{_gigabytes(free)} free at {folder}"
    if free >= LITE_RESERVE:
        yield Finding("disk", "ok", found)
    elif is_lite(asked["uri"]):
        yield Finding("disk", "problem", found, f"Milvus Lite writes only with {LITE_RESERVE // _MEGABYTE} MB free")
    else:
        yield Finding("disk", "warning", found, "reports and uploaded images need room")


def memory(_asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether an ingest finds room, as far as this system tells."""
    free = _free_memory()
    if free is None:
        yield Finding("memory", "ok", "this system does not tell what is free")
    elif free < _INGEST_BYTES:
        yield Finding(
            "memory",
            "warning",
            f"{_gigabytes(free)} free",
            "an ingest with torch took up to 1.8 GB; take a small --batch-size",
        )
    else:
        yield Finding("memory", "ok", f"{_gigabytes(free)} free")


def api(asked: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the service answers questions, when one was named."""
    if not asked["api"]:
        return
    from lookalike.serve.client import Client, ServiceError

    with Client(asked["api"], timeout=_API_SECONDS, retries=0) as client:
        try:
            client.ready()
        except ServiceError as error:
            yield Finding("api", "problem", f"{asked['api']}/ready: {error}", "its log says why, most often Milvus")
            return
    yield Finding("api", "ok", f"{asked['api']} has embedded an image and searched with it just now")


def _features(features: Mapping[str, bool]) -> Iterator[Finding]:
    for feature, works in features.items():
        if works:
            yield Finding(feature, "ok", "works")
        elif feature == "aliases":
            yield Finding(feature, "problem", "does not work", _WITHOUT[feature])
        else:
            yield Finding(feature, "ok", f"does not work; {_WITHOUT[feature]}")


def _no_collection(asked: Mapping[str, Any]) -> Finding:
    from lookalike.schema.milvus.create import describe_missing_collection

    return Finding("collection", "warning", describe_missing_collection(asked["collection"], asked["uri"], []))


def _collection(asked: Mapping[str, Any], seen: Any) -> Finding:
    name = asked["collection"]
    if seen.fingerprint is None:
        return Finding("collection", "problem", f"{name} was not made by lookalike", "name another with --collection")
    print_ = seen.fingerprint
    encoder = f"{print_.encoder} (weights {print_.weights}, {print_.dim} dimensions)"
    if seen.rows is None:
        return Finding(
            "collection", "warning", f"{name}, filled by {encoder}, is not loaded", "the next search loads it"
        )
    return Finding("collection", "ok", f"{name} is {seen.version}: {seen.rows} images, by {encoder}")


def _weights(encoder: str | None) -> Finding:
    from lookalike.encode.registry import DEFAULT_ENCODER, has_weights

    name = encoder or DEFAULT_ENCODER
    if has_weights(name):
        return Finding("encoder", "ok", f"{name}: its weights are here")
    if Path(name).is_absolute():
        return Finding("encoder", "problem", f"{name} holds no checkpoint", "bring it back: the collection needs it")
    return Finding("encoder", "warning", f"{name}: its weights are not here", "they are downloaded at first use")


def _free_memory() -> int | None:
    """Bytes that can still be had, of the machine and of the container; None where the system does not tell."""
    told = Path("/proc/meminfo")
    if not told.exists():
        return None
    lines = dict(line.split(":", 1) for line in told.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
