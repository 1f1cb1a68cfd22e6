"""How much memory this computer and this process have and have left, in bytes; None where the system does not tell.

Linux tells by /proc and the control group, Windows by its own call. Elsewhere only the whole is known.
"""

import ctypes
import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import resource

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
# Memory in use and its limit, in the second and in the first version of control groups.
CGROUP_FILES = (("memory.current", "memory.max"), ("memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"))


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
