"""A folder is called a checkpoint only while all of it is there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gama.errors import CheckpointError
from gama.training import checkpoints
from gama.training.checkpoints import PARTIAL, damage, finish, is_whole, last_checkpoint, resumable, sweep

FILES = ("training.safetensors", "optimizer.pt", "trainer_state.json")


def write(folder: Path, text: str = "{}") -> Path:
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(text)
    return folder


def saved(output: Path, step: int, limit: int | None = None) -> Path:
    write(output / PARTIAL / f"checkpoint-{step}")
    finish(output, step, limit)
    return output / f"checkpoint-{step}"


def names(output: Path) -> list[str]:
    return sorted(path.name for path in output.iterdir())


def test_the_last_whole_one_is_found(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    write(tmp_path / PARTIAL / "checkpoint-30")
    (tmp_path / "checkpoint-best").mkdir()
    for step in (5, 10, 9):
        saved(tmp_path, step)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


@pytest.mark.parametrize("name", [*FILES, "files.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_one_that_lost_something_is_not_whole(tmp_path: Path, name: str, damage: str) -> None:
    saved(tmp_path, 5)
    file = saved(tmp_path, 10) / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-1])
    whole = (name, damage) == ("files.json", "gone")  # as checkpoints were before there was a list
    assert is_whole(file.parent) == whole
    assert last_checkpoint(tmp_path) == tmp_path / ("checkpoint-10" if whole else "checkpoint-5")


def test_the_oldest_go(tmp_path: Path) -> None:
    for step in (2, 4, 10, 12):
        saved(tmp_path, step, limit=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-12"]
    assert names(saved(tmp_path, 12, limit=1)) == sorted([*FILES, "files.json"])
    assert names(tmp_path) == ["checkpoint-12"]


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        saved(tmp_path, step)
    (tmp_path / "checkpoint-9/optimizer.pt").unlink()
    for rest in (f"{PARTIAL}/checkpoint-9", ".final.tmp", ".checkpoint-2.gone.tmp"):
        write(tmp_path / rest)
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / ".mine.tmp").mkdir()
    sweep(tmp_path, limit=1)
    assert names(tmp_path) == [".mine.tmp", "checkpoint-6", "checkpoint-9", "metrics.jsonl"]
    assert sorted(path.name for path in (tmp_path / "checkpoint-9").iterdir()) == sorted(
        ["files.json", "trainer_state.json", "training.safetensors"]
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("gone", "optimizer.pt is missing"),
        ("empty", "optimizer.pt has 0 bytes, 2 were written"),
        ("changed", "optimizer.pt has other contents than were written"),
    ],
)
def test_a_run_goes_on_from_the_newest_whole_one(tmp_path: Path, damage: str, reason: str) -> None:
    for step in (3, 6, 9):
        file = saved(tmp_path, step) / "optimizer.pt"
    if damage == "gone":
        file.unlink()
    else:
        file.write_text("" if damage == "empty" else "[]")
    assert resumable(tmp_path) == (
        tmp_path / "checkpoint-6",
        [f"{tmp_path / 'checkpoint-9'} is not whole: {reason}"],
    )


def test_none_that_is_whole_is_no_beginning(tmp_path: Path) -> None:
    assert resumable(tmp_path) == (None, [])
    for step in (3, 6):
        (saved(tmp_path, step) / "trainer_state.json").write_bytes(b"")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="checkpoint-6 is not whole: trainer_state.json has 0 bytes, 2 were") as e:
        resumable(tmp_path)
    assert "checkpoint-3 is not whole" in str(e.value) and "train anew into another --output" in str(e.value)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_damaged_one_is_not_counted_and_not_written_over(tmp_path: Path) -> None:
    for step in (3, 6):
        saved(tmp_path, step)
    (tmp_path / "checkpoint-6" / "optimizer.pt").write_bytes(b"")
    saved(tmp_path, 6, limit=1)
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-6.damaged"]
    assert is_whole(tmp_path / "checkpoint-6")
    assert (tmp_path / "checkpoint-6.damaged" / "optimizer.pt").read_bytes() == b""
    (tmp_path / "checkpoint-6" / "optimizer.pt").unlink()
    saved(tmp_path, 6, limit=1)
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-6.damaged", "checkpoint-6.damaged1"]
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"


def test_a_list_of_sizes_alone_is_read(tmp_path: Path) -> None:
    """As it was written before checksums."""
    folder = saved(tmp_path, 3)
    listed = {name: size for name, (size, _) in json.loads((folder / "files.json").read_text()).items()}
    (folder / "files.json").write_text(json.dumps(listed))
    assert resumable(tmp_path) == (folder, [])
    (folder / "optimizer.pt").write_bytes(b"")
    assert damage(folder) == "optimizer.pt has 0 bytes, 2 were written"


def test_at_no_moment_of_a_save_is_there_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops before each change that a save makes to the disk, and looks what a new run would find."""
    left, seen = 0, []

    def counted(original: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return original(*args, **options)

        return call

    for stop in range(40):
        output = tmp_path / str(stop)
        saved(output, 5, limit=1)
        write(output / PARTIAL / "checkpoint-10", "{ }")
        left = stop
        with monkeypatch.context() as patch:
            for module, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"), (shutil, "rmtree")):
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                finish(output, 10, 1)
                break
            except KeyboardInterrupt:
                pass
        found = last_checkpoint(output)
        assert found is not None and is_whole(found)
        seen.append(found.name)
        sweep(output, 1)
        assert names(output) == [found.name]
    assert seen[0] == "checkpoint-5" and seen[-1] == "checkpoint-10" and seen == sorted(seen, key=len)
    assert checkpoints.last_checkpoint(output) == output / "checkpoint-10"
