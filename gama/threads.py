"""How many threads compute: one for each physical core that this process may use. No torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def threads() -> int:
    """``OMP_NUM_THREADS`` where it is set; else the physical cores among those this process may use, and no more than
    the time its cgroup allows it.

    Two hardware threads of a core share its arithmetic units: products gain nothing by the second.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given.isdecimal() and int(given) > 0:
        return int(given)
    return max(1, min(_physical(_allowed(), _CPUS), _quota(_CGROUPS, _OWN_CGROUP)))


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _physical(allowed: set[int], folder: Path) -> int:
    """How many cores the allowed hardware threads belong to; each for its own where the system does not tell."""
    cores = set()
    for cpu in allowed:
        try:
            cores.add((folder / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _quota(root: Path, own: Path) -> int:
    """Whole cores that a cgroup's time is worth; 2 ** 16 where nothing limits it."""
    most = math.inf
    for folder in _cgroups(root, own):
        quota, period = _limit(folder)
        if quota > 0 and period > 0:
            most = min(most, quota / period)
    return 2**16 if most == math.inf else max(1, math.ceil(most))


def _cgroups(root: Path, own: Path) -> list[Path]:
    """The folders of this process's cgroup and of those around it, for both versions of cgroups."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [root, root / "cpu"]
    found = [root, root / "cpu"]
    for line in lines:
        _, kinds, path = (*line.split(":", 2), "", "")[:3]
        base = root if not kinds else root / "cpu" if "cpu" in kinds.split(",") else None
        if base is not None:
            inner = base / path.strip("/")
            found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    return found


def _limit(folder: Path) -> tuple[float, float]:
    """Microseconds of time in a period; 0 for no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        except OSError:
            return 0.0, 0.0
    try:
        return float(quota), float(period)
    except ValueError:  # "max"
        return 0.0, 0.0


__all__ = ["threads"]
