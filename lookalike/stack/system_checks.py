"""Checks of what lookalike works with: Milvus, the collection, the encoder's weights, disk, memory, the API."""

import shutil
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike.schema.errors import StoreUnreachable
from lookalike.schema.settings import is_lite
from lookalike.stack.finding import Finding
from lookalike.stack.options import DoctorOptions

if TYPE_CHECKING:
    from lookalike.schema.milvus.capabilities import FoundCollection

_MEGABYTE = 2**20
_INGEST_BYTES = 1_800 * _MEGABYTE
"""Peak memory of an ingest with the default encoder on torch (docs/benchmarks.md); ONNX Runtime takes half."""
_API_TIMEOUT_SECONDS = 30.0
_ABSENT_FEATURES = {
    "aliases": "lookalike needs them to switch versions; use Milvus 2.3 or later, or Milvus Lite",
    "group by": "lookalike groups by product itself",
    "partial update": "lookalike writes whole rows",
    "bulk import": "lookalike upserts",
}


def check_milvus(options: DoctorOptions) -> Iterator[Finding]:
    """Check Milvus, its features, the collection, and the weights of the collection's encoder."""
    from lookalike.schema.milvus.capabilities import lite_features

    encoder = yield from _check_store(options)
    if is_lite(options.uri):
        yield from _report_features(lite_features())
    yield _check_weights(encoder)


def check_disk(options: DoctorOptions) -> Iterator[Finding]:
    """Check that there is disk space to write."""
    from lookalike.schema.milvus.connection import LITE_RESERVE

    folder = Path(options.uri).absolute().parent if is_lite(options.uri) else Path.cwd()
    free = shutil.disk_usage(folder).free
    found = f"{_format_gigabytes(free)} free at {folder}"
    if free >= LITE_RESERVE:
        yield Finding("disk", "ok", found)
    elif is_lite(options.uri):
        yield Finding("disk", "problem", found, f"Milvus Lite writes only with {LITE_RESERVE // _MEGABYTE} MB free")
    else:
        yield Finding("disk", "warning", found, "reports and uploaded images need disk space")


def check_memory(_options: DoctorOptions) -> Iterator[Finding]:
    """Check that an ingest fits into the free memory, where the system reports it."""
    free = _free_memory()
    if free is None:
        yield Finding("memory", "ok", "this system does not report its free memory")
    elif free < _INGEST_BYTES:
        yield Finding(
            "memory",
            "warning",
            f"{_format_gigabytes(free)} free",
            "an ingest with torch takes up to 1.8 GB; lower --batch-size",
        )
    else:
        yield Finding("memory", "ok", f"{_format_gigabytes(free)} free")


def check_api(options: DoctorOptions) -> Iterator[Finding]:
    """Check that the service at --api is ready, if that option is set."""
    if not options.api:
        return
    from lookalike.serve.client import Client, ServiceError

    with Client(options.api, timeout=_API_TIMEOUT_SECONDS, retries=0) as client:
        try:
            problem = "" if client.is_ready() else "503, it cannot search at present"
        except ServiceError as error:
            problem = str(error)
    if problem:
        yield Finding("api", "problem", f"{options.api}/ready: {problem}", "its log has the reason, often Milvus")
    else:
        yield Finding("api", "ok", f"{options.api} has just encoded an image and searched with it")


def _check_store(options: DoctorOptions) -> Generator[Finding, None, str | None]:
    """Check Milvus and the collection; return the name of the collection's encoder, None if it is unknown."""
    from lookalike.schema.milvus.capabilities import CapabilityProbe
    from lookalike.schema.milvus.lite.holder import describe_holder, is_locked_by_another

    uri, encoder = options.uri, None
    if is_lite(uri) and not Path(uri).exists():
        yield Finding("milvus", "ok", f"Milvus Lite; {uri} does not exist yet")
        yield _report_missing_collection(options)
        return None
    if is_lite(uri) and is_locked_by_another(uri):
        found = describe_holder(uri)
        yield Finding("milvus", "warning", found, "if that is lookalike serve, check it with --api ADDRESS")
        return None
    try:
        with CapabilityProbe.connect(uri, options.token) as probe:
            yield Finding("milvus", "ok", f"{probe.server_version()} at {uri}")
            collection = probe.collection(options.collection)
            if collection is None:
                yield _report_missing_collection(options)
            else:
                encoder = collection.fingerprint.encoder if collection.fingerprint else None
                yield _report_collection(options.collection, collection)
            if not is_lite(uri):
                yield from _report_features(probe.features())
    except StoreUnreachable as error:
        yield Finding("milvus", "problem", str(error))
    return encoder


def _report_features(features: Mapping[str, bool]) -> Iterator[Finding]:
    for feature, works in features.items():
        if works:
            yield Finding(feature, "ok", "works")
        elif feature == "aliases":
            yield Finding(feature, "problem", "does not work", _ABSENT_FEATURES[feature])
        else:
            yield Finding(feature, "ok", f"does not work; {_ABSENT_FEATURES[feature]}")


def _report_missing_collection(options: DoctorOptions) -> Finding:
    from lookalike.schema.milvus.create import describe_missing_collection

    return Finding("collection", "warning", describe_missing_collection(options.collection, options.uri, []))


def _report_collection(name: str, collection: "FoundCollection") -> Finding:
    fingerprint = collection.fingerprint
    if fingerprint is None:
        return Finding(
            "collection", "problem", f"{name} was not created by lookalike", "choose another with --collection"
        )
    encoder = f"{fingerprint.encoder} (weights {fingerprint.weights}, {fingerprint.dim} dimensions)"
    if collection.rows is None:
        found = f"{name}, filled by {encoder}, is not loaded"
        return Finding("collection", "warning", found, "the next search loads it")
    return Finding("collection", "ok", f"{name} is {collection.version}: {collection.rows} images, by {encoder}")


def _check_weights(encoder: str | None) -> Finding:
    from lookalike.encode.registry import DEFAULT_ENCODER, has_weights

    name = encoder or DEFAULT_ENCODER
    if has_weights(name):
        return Finding("encoder", "ok", f"{name}: its weights are here")
    if Path(name).is_absolute():
        return Finding(
            "encoder", "problem", f"{name} holds no checkpoint", "restore it: the collection needs this encoder"
        )
    return Finding("encoder", "warning", f"{name}: its weights are not here", "the first use downloads them")


def _free_memory() -> int | None:
    """Free bytes of the machine, or of the container if that is less; None if the system does not report them."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit_file, used_file = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit_file.exists() and used_file.exists() and (limit := limit_file.read_text().strip()) != "max":
        free = min(free, int(limit) - int(used_file.read_text()))
    return free


def _format_gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
