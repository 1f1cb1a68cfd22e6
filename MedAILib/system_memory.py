"""How much memory this computer and this process have and have left, and how the process keeps it.

In bytes; None where the system does not tell. Linux tells by /proc and the control group, Windows by its own call.
Elsewhere only the whole is known.
"""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

if sys.platform != "win32":
    import resource

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
# Memory in use and its limit, in the second and in the first version of control groups.
CGROUP_FILES = (("memory.current", "memory.max"), ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"))

# glibc's names of what can be set, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Blocks up to this size come from memory that the process already has, and go back to it.
KEPT_BLOCK_BYTES = 512 * 2**20
# Free memory above this is given back to the system at once.
KEPT_BYTES = 2**31 - 1


def available_memory() -> int | None:
    """What a process can still take without others being pushed out: the least of what the system and limits leave."""
    found = [_system()[1], _limit_left(), _group_left()]
    known = [number for number in found if number is not None]
    return max(min(known), 0) if known else None


def total_memory() -> int | None:
    """The computer's memory, or the control group's share of it."""
    group = [limit for _, limit in _group()]
    known = [number for number in (_system()[0], *group) if number is not None]
    return min(known) if known else None


def process_memory() -> int | None:
    """What this process occupies (resident set)."""
    return _status("VmRSS")


def peak_process_memory() -> int | None:
    """The most that this process has ever occupied (resident set)."""
    return _status("VmHWM")


def keep_freed_memory() -> bool:
    """Let malloc use freed blocks again instead of asking the system for new pages for each; True where that is done.

    A network asks for the same few large blocks over and over; by default each comes from the system, page by page,
    and goes back. One arena for all threads, as only the first one grows without a limit. glibc alone.
    """
    libc = _glibc()
    if libc is None:
        return False
    settings = ((M_ARENA_MAX, 1), (M_TRIM_THRESHOLD, KEPT_BYTES))
    done = [libc.mallopt(name, value) for name, value in settings]
    # Before 2.35, glibc refuses a threshold over 32 MiB.
    large = libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES) or libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
    return all(done) and bool(large)


def trim_memory() -> None:
    """Hand freed memory that malloc keeps back to the system; glibc alone."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


def _system() -> tuple[int | None, int | None]:
    """The computer's whole and available memory."""
    if sys.platform == "linux":
        entries = _entries(PROC / "meminfo")
        return entries.get("MemTotal"), entries.get("MemAvailable")
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return None, None
        return status.total, status.available
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None


def _limit_left() -> int | None:
    """What the limit of this process's address space (ulimit -v) leaves."""
    if sys.platform == "win32":
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _status("VmSize")
    return None if limit == resource.RLIM_INFINITY or used is None else limit - used


def _group_left() -> int | None:
    left = [limit - used for used, limit in _group()]
    return min(left) if left else None


def _group() -> list[tuple[int, int]]:
    """Use and limit of the control groups that have one."""
    found = []
    for used, limit in CGROUP_FILES:
        try:
            found.append((int((CGROUP / used).read_text()), int((CGROUP / limit).read_text())))
        except (OSError, ValueError):
            continue  # no such group, or "max": no limit
    return found


def _status(name: str) -> int | None:
    return _entries(PROC / "self" / "status").get(name)


def _entries(path: Path) -> dict[str, int]:
    """The entries in kB of a file of /proc, in bytes; none where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in words}


class _MemoryStatus(ctypes.Structure):
    """Windows' MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("total_page_file", ctypes.c_uint64),
        ("available_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("available_virtual", ctypes.c_uint64),
        ("available_extended_virtual", ctypes.c_uint64),
    )
