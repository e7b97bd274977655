"""What this process asks of the machine; imports nothing that starts a thread."""

import ctypes
import os
import sys
from pathlib import Path

MAX_PARALLEL_BATCHES = 8
"""Batches that are in the network at once: each holds the activations of its images."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Have glibc keep what networks free between layers instead of faulting it in again: up to ten times faster.

    A command calls it, never a library: it changes the whole process. It comes before the first thread, so before
    numpy is imported: the heaps that glibc gives to other threads are handed back whatever is asked for, and one arena
    for all keeps two lanes of a small network a third faster.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, musl for one, has its own ways
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
    mallopt(_TOP_PAD, 64 * 2**20)
    mallopt(_ARENA_MAX, 1)


def count_cores() -> int:
    """How many cores this process may use; in a container, as many as its share of the time makes."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, cpu_quota(Path("/sys/fs/cgroup/cpu.max")) or there)


def cpu_quota(told: Path) -> int | None:
    """How many cores make the time that a control group (version 2) may use; None without a limit."""
    try:
        most, period = told.read_text().split()
        return None if most == "max" else max(1, -(-int(most) // int(period)))
    except (OSError, ValueError):  # another system
        return None
