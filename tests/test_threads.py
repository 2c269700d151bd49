"""How many threads compute: physical cores, what the process may use of them, and what its cgroup allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gama import threads as module
from gama.threads import threads


def machine(folder: Path, siblings: list[str]) -> Path:
    """A folder as /sys/devices/system/cpu; one entry a hardware thread."""
    for cpu, text in enumerate(siblings):
        place = folder / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{text}\n")
    return folder


def test_hardware_threads_of_a_core_count_once(tmp_path: Path) -> None:
    folder = machine(tmp_path, ["0,4", "1,5", "2,6", "3,7"] * 2)
    assert module._physical(set(range(8)), folder) == 4
    assert module._physical({0, 4, 1}, folder) == 2
    assert module._physical({0, 1, 2}, tmp_path / "none") == 3


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 2**16), ("150000 100000", 2), ("50000 100000", 1), ("400000 100000", 4)]
)
def test_the_time_of_a_cgroup(tmp_path: Path, limit: str, expected: int) -> None:
    inner = tmp_path / "root" / "slice" / "job"
    inner.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/slice/job\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text(f"{limit}\n")  # the folder around it limits it, too
    assert module._quota(tmp_path / "root", tmp_path / "own") == expected


def test_the_time_of_an_older_cgroup(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "cpu" / "job"
    folder.mkdir(parents=True)
    (tmp_path / "own").write_text("4:memory:/other\n3:cpu,cpuacct:/job\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert module._quota(tmp_path / "root", tmp_path / "own") == 2**16
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    assert module._quota(tmp_path / "root", tmp_path / "own") == 3
    assert module._quota(tmp_path / "none", tmp_path / "none") == 2**16


def test_what_the_environment_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("3", 3), ("5,2", 5)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads() == expected
    for text in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert 1 <= threads() <= (os.cpu_count() or 1)


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "_physical", lambda *_: 8)
    monkeypatch.setattr(module, "_quota", lambda *_: 3)
    assert threads() == 3
    monkeypatch.setattr(module, "_quota", lambda *_: 2**16)
    assert threads() == 8
