"""How this process uses the memory and the cores of the machine; imports nothing that starts a thread."""

import ctypes
import os
import sys
from pathlib import Path

MAX_PARALLEL_BATCHES = 8
"""Batches that a CPU encodes at the same time, at most: each holds the activations of its images."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a model frees between layers: up to ten times faster.

    Otherwise glibc returns it to the kernel, and each layer faults it in again. It changes the whole process, so only
    a command calls it, never a library. Call it before the first thread starts, so before numpy is imported: glibc
    always trims the heaps of other threads. One arena for all threads makes a small model a third faster when two
    batches run at the same time.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_TOP_PAD, 64 * 2**20)
    mallopt(_ARENA_MAX, 1)


def count_cores() -> int:
    """Count the cores that this process may use; in a container, its CPU quota in whole cores, rounded up."""
    # Only Linux and its like can say which cores a process is bound to.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, cpu_quota(Path("/sys/fs/cgroup/cpu.max")) or available)


def cpu_quota(cpu_max: Path) -> int | None:
    """Read the CPU quota of a control group (version 2) from its file `cpu.max`, in cores; None without a limit."""
    try:
        quota, period = cpu_max.read_text().split()
        return None if quota == "max" else max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # not Linux, or version 1
        return None
