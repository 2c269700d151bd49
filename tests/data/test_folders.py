"""Folders with links: every name that a user sees, once, and no walk without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gama.data import folders
from gama.data.folders import files_below
from gama.errors import GamaError


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder, {".flac"})]


def test_links_keep_their_names_and_linked_folders_are_entered(tmp_path: Path) -> None:
    """As huggingface_hub keeps a data set: the content lies among the blobs, the names are links."""
    blobs, data = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "data"
    blobs.mkdir()
    data.mkdir(parents=True)
    (blobs / "17bddb").write_bytes(b"x")
    for name in ("a.flac", "b.FLAC"):
        (data / name).symlink_to("../../../blobs/17bddb")
    (tmp_path / "snapshots" / "linked").symlink_to("abc/data", target_is_directory=True)
    (data / "gone.flac").symlink_to("nowhere")
    (data / "notes.txt").touch()
    assert names(tmp_path / "snapshots" / "abc") == ["data/a.flac", "data/b.FLAC", "data/gone.flac"]
    assert names(tmp_path / "snapshots" / "linked") == ["a.flac", "b.FLAC", "gone.flac"]
    assert len(names(tmp_path / "snapshots")) == 6


def test_links_to_folders_above_end(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.flac").touch()
    (tmp_path / "in" / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "in" / "self").symlink_to("self")
    assert names(tmp_path) == ["in/a.flac"]


def test_links_among_folders_without_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST_LINKS", 2)
    for index in range(5):
        (tmp_path / str(index)).mkdir()
        for other in range(5):
            if other != index:
                (tmp_path / str(index) / f"to{other}").symlink_to(f"../{other}", target_is_directory=True)
    with pytest.raises(GamaError, match="more than 2 linked folders within each other"):
        names(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o000)
    with pytest.raises(GamaError, match="shut: the folder cannot be read: Permission denied"):
        names(tmp_path)
