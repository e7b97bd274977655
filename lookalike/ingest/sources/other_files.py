"""Files that no image or manifest is read from: what to do with one as a source, and how to count many."""

from collections.abc import Mapping
from pathlib import Path

from lookalike.encode.image_limits import SUFFIXES
from lookalike.ingest.sources.tables import READERS, STANDARD_INPUT

UNSUPPORTED_SUFFIXES = frozenset({".heic", ".heif", ".svg", ".psd", ".raw", ".jxl", ".jp2"})
"""Of images that cannot be read: each is rejected."""

_MAX_LISTED = 8
"""How many suffixes a message lists."""

_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def list_image_suffixes() -> str:
    """Return the suffixes of images for a message."""
    return ", ".join(sorted(SUFFIXES))


def list_suffixes(counts: Mapping[str, int]) -> str:
    """Return how many files there are of each suffix, most first: `12 .heic, 3 .svg`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{count} {suffix or 'without suffix'}" for suffix, count in ordered[:_MAX_LISTED]]
    more = sum(count for _, count in ordered[_MAX_LISTED:])
    return ", ".join([*listed, f"{more} others"] if more else listed)


def describe_other_file(path: str) -> str:
    """Return why a file is no source, and what to do."""
    suffix = Path(path).suffix.lower()
    manifests = ", ".join(reader for reader in READERS if reader != STANDARD_INPUT)
    return (
        f"SOURCE {path!r} is a file that is not read as a catalogue. {_advise(suffix)}SOURCE is a folder of images; "
        f"or a manifest, a file of {manifests}; or - for JSON lines on standard input"
    )


def _advise(suffix: str) -> str:
    if suffix in SUFFIXES:
        return "It is an image: name the folder that holds it. "
    if suffix in _SPREADSHEETS:
        return "Save the spreadsheet as CSV (UTF-8). "
    if suffix in _ARCHIVES:
        return "Unpack it first. "
    if suffix == ".json":
        return "Write each product as one line of JSON, in a file of .jsonl: jq -c '.[]' FILE.json > FILE.jsonl. "
    if suffix in (".txt", ""):
        return "If it is a table in CSV, call it .csv. "
    return ""
