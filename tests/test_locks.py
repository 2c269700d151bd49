"""One writer at a time, by a lock that ends with its process."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gama import locks
from gama.errors import CheckpointError, LockedError, OutputError

HOLD = "import sys, time; from pathlib import Path; from gama.locks import locked\n"
HOLD += "with locked(Path(sys.argv[1]), 'the run'): print('locked', flush=True); time.sleep(60)"
ADD = """
import sys; from pathlib import Path; from gama.locks import locked
path = Path(sys.argv[1])
for _ in range(25):
    with locked(path, "the sum", wait=60): path.write_text(str(int(path.read_text()) + 1))
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_error_says_who_writes_and_what_to_do(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        with pytest.raises(LockedError) as raised, locks.locked(tmp_path / "out", "the run"):
            pass
        assert f"{tmp_path / 'out'}: process {process.pid} on " in str(raised.value)
        assert "has been writing the run since 20" in str(raised.value)
        assert f"kill {process.pid}" in str(raised.value.hint)


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as process:
        process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        process.wait(10)
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    with locks.locked(tmp_path / "out", "the run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_and_the_next_one_may_write(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no"), locks.locked(tmp_path / "out", "the run"):
            raise ValueError("no")
        with locks.locked(tmp_path, "the run", inside=True):
            assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        assert list(tmp_path.iterdir()) == []


def test_a_second_lock_in_the_same_process_is_refused_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with locks.locked(tmp_path / "out", "the run"):
        for path in (tmp_path / "out", tmp_path / "link"):
            with pytest.raises(LockedError, match="this process"), locks.locked(path, "the run"):
                pass
        with locks.locked(tmp_path / "other", "the run"):
            pass


def test_one_waits_for_another(tmp_path: Path) -> None:
    begun, order = threading.Event(), []

    def first() -> None:
        with locks.locked(tmp_path / "out", "the run"):
            begun.set()
            order.append("first begins")
            threading.Event().wait(0.3)
            order.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(10)
    with locks.locked(tmp_path / "out", "the run", wait=30):
        order.append("second begins")
    thread.join()
    assert order == ["first begins", "first ends", "second begins"]


def test_no_two_processes_hold_it_at_once(tmp_path: Path) -> None:
    total = tmp_path / "sum"
    total.write_text("0")
    adders = [subprocess.Popen([sys.executable, "-c", ADD, str(total)]) for _ in range(4)]
    assert [adder.wait(120) for adder in adders] == [0] * 4
    assert total.read_text() == "100"
    assert [path.name for path in tmp_path.iterdir()] == ["sum"]


@pytest.mark.skipif(os.name != "posix", reason="devices as POSIX has them")
def test_a_device_is_not_locked() -> None:
    with locks.locked(Path("/dev/null"), "the run"), locks.locked(Path("/dev/null"), "the run"):
        pass


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(locks, "_lock", no_locks)
    with caplog.at_level(logging.WARNING), locks.locked(tmp_path / "out", "the run"):
        pass
    assert f"{tmp_path / 'out'}: this file system has no locks" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_target(tmp_path: Path) -> None:
    out = tmp_path / "none" / "out"
    with pytest.raises(OutputError, match=f"{out}: cannot be written"), locks.locked(out, "the run"):
        pass


def test_the_full_disk_does_not_unlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    refused = pytest.raises(LockedError, match="another process is writing the run")
    with locks.locked(tmp_path / "out", "the run"), refused, locks.locked(tmp_path / "out", "the run"):
        pass


@pytest.mark.parametrize("module", ["checkpoints", "export"])
def test_a_folder_that_appeared_since_it_was_checked_is_not_replaced(tmp_path: Path, module: str) -> None:
    """Of two commands that began together, the one that comes to write last finds it before its work."""
    from gama.checkpoints import folders as checkpoints
    from gama.export import folders as export

    staged = checkpoints.staged if module == "checkpoints" else export.new_folder
    with staged(tmp_path / "out") as folder:
        (folder / "first").write_text("first")
        with pytest.raises(LockedError, match="this process has been writing"), staged(tmp_path / "out"):
            pass
    with pytest.raises(CheckpointError, match="exists"), staged(tmp_path / "out"):
        raise AssertionError("the work was begun")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first"]
