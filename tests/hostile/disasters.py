"""What happens to the files of a catalogue, or to the disk, while a run reads or writes. It happens in its process."""

import os
import shutil
import time
from pathlib import Path

FILLER = "filler"


def fill(disk: Path) -> None:
    """Leave no byte free."""
    free = os.statvfs(disk)
    with (disk / FILLER).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)


def replace_photos(folder: Path) -> None:
    """Let photos vanish, grow, and turn into whatever else a path may lead to."""
    for name in STRANGE:
        (folder / f"{name}.png").unlink()
    os.mkfifo(folder / "fifo.png")
    (folder / "folder.png").mkdir()
    for name, target in LINKS.items():
        (folder / f"{name}.png").symlink_to(target)
    for name, size in GROWN.items():
        os.truncate(folder / f"{name}.png", size)
    # Other bytes, but the same size and mtime as before the run.
    file = folder / "swapped.png"
    status = file.stat()
    shutil.copyfile(folder / "swap_with.png", file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def set_clock_back(days: int) -> None:
    """Let the nanoseconds of this process be earlier. `time.time` stays: gRPC's deadlines would pass at once."""
    now = time.time_ns
    time.time_ns = lambda: now() - days * 86_400 * 10**9


LINKS = {
    "loop": "loop.png",
    "zero": "/dev/zero",
    "null": "/dev/null",
    "memory": "/proc/self/mem",
    "pagemap": "/proc/self/pagemap",
    "environment": "/proc/self/environ",
    "nowhere": "nowhere at all",
}
GROWN = {"grown": 300 * 2**20, "padded": 2**20}
STRANGE = ("gone", "fifo", "folder", *LINKS)
