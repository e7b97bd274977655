"""The file that an export writes: its format by its suffix, its name only when it is complete."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lookalike.schema.errors import BadSettings

SUFFIXES = (".parquet", ".csv", ".jsonl")


def check_suffix(path: Path) -> str:
    """Return the suffix of a file to export to. Raises BadSettings for a folder, and for an unknown suffix."""
    if path.is_dir():
        raise BadSettings(f"{str(path)!r} is a folder; name a file, such as {path / 'catalogue.parquet'}")
    if path.suffix.lower() not in SUFFIXES:
        raise BadSettings(
            f"{str(path)!r} ends in none of {', '.join(SUFFIXES)}; the suffix says what is written (.parquet has the "
            "vectors and can be imported)"
        )
    return path.suffix.lower()


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the path to write to, and rename it when the block ends well. Raises BadSettings when that fails."""
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):  # a part of an export is of no use, and may fill the disk
            unfinished.unlink()
        raise BadSettings(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
