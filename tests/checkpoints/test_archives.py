"""Zip archives: what leads out or blows up is refused, what Apple's archiver wrote beyond 4 GiB opens."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gama.checkpoints import archives
from gama.errors import CheckpointError

WEIGHTS = bytes(range(256)) * 40
NOTE = b"read me\n"


def pack(path: Path, members: dict[str, bytes], *, packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def unpacked(path: Path, tmp_path: Path) -> dict[str, bytes]:
    target = tmp_path / "target"
    target.mkdir()
    archives.unpack(path, target)
    return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


def refusal(path: Path, tmp_path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        unpacked(path, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.name == "evil"] == []
    return str(caught.value)


def wrapped(data: bytes, modulus: int) -> bytes:
    """A zip archive as Apple's archiver would write it if numbers began again at ``modulus``: no Zip64, all modulo."""
    out = bytearray(data)
    end = data.rindex(b"PK\x05\x06")
    count, _, start = struct.unpack_from("<HII", data, end + 10)
    struct.pack_into("<I", out, end + 16, start % modulus)
    at = start
    for _ in range(count):
        assert data[at : at + 4] == b"PK\x01\x02"
        for field in (20, 24, 42):
            struct.pack_into("<I", out, at + field, struct.unpack_from("<I", data, at + field)[0] % modulus)
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    return bytes(out)


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_plain_archive(packed: int, tmp_path: Path) -> None:
    members = {"stage5/pytorch_model.bin": WEIGHTS, "stage5/note.txt": NOTE, "empty": b""}
    path = pack(
        tmp_path / "a.zip", members | {"__MACOSX/stage5/._note.txt": b"x", "stage5/.DS_Store": b"x"}, packed=packed
    )
    assert unpacked(path, tmp_path) == members


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_sizes_and_offsets_that_began_again_from_zero(
    packed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authors' case in small: 4 GiB is 4 KiB here. zipfile and unzip take it for a bomb or damage."""
    monkeypatch.setattr(archives, "WRAP", 4096)
    import random

    noise = random.Random(3)
    members = {f"part-{i}.bin": noise.randbytes(5000 + 3000 * i) for i in range(4)} | {"note.txt": NOTE}
    path = pack(tmp_path / "plain.zip", members, packed=packed)
    path.write_bytes(wrapped(path.read_bytes(), 4096))
    with pytest.raises(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        archive.testzip()
        raise zipfile.BadZipFile(archive.read("part-3.bin"))
    assert unpacked(path, tmp_path) == members


def test_packed_sizes_that_reach_into_the_next_entry(tmp_path: Path) -> None:
    """By the directory parts overlap, which unzip and newer zipfile call a bomb; the data are whole all the same."""
    path = pack(tmp_path / "a.zip", {"a.bin": WEIGHTS, "b.bin": NOTE * 50}, packed=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 20, struct.unpack_from("<I", data, at + 20)[0] + 24)
    path.write_bytes(data)
    assert unpacked(path, tmp_path) == {"a.bin": WEIGHTS, "b.bin": NOTE * 50}


def test_bytes_before_the_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bin": WEIGHTS})
    path.write_bytes(b"#!/bin/sh\n" * 5 + path.read_bytes())
    assert unpacked(path, tmp_path) == {"a.bin": WEIGHTS}


def test_zip64(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.bin", "w", force_zip64=True) as member:
        member.write(WEIGHTS)
    assert unpacked(path, tmp_path) == {"a.bin": WEIGHTS}


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:\\evil", "C:evil"])
def test_no_path_leaves_the_target(name: str, tmp_path: Path) -> None:
    assert "leads out" in refusal(pack(tmp_path / "a.zip", {"fine": NOTE, name: NOTE}), tmp_path)


def test_no_link_is_made(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc")
        archive.writestr("link/evil", NOTE)
    assert "link" in refusal(tmp_path / "a.zip", tmp_path)


def test_one_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.bin", NOTE)
        archive.writestr("a.bin", WEIGHTS)
    assert "a.bin" in refusal(tmp_path / "a.zip", tmp_path)


def declared(path: Path) -> None:
    """Leaves the archive as it is: it says itself how large it becomes."""


def lying(path: Path) -> None:
    """Declares 10 bytes for what unpacks to millions."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    path.write_bytes(data)


@pytest.mark.parametrize("change", [declared, lying])
def test_a_bomb_is_refused(change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_SMALL", 2**20)
    path = pack(tmp_path / "a.zip", {"evil": b"\0" * (5 * 2**20)}, packed=zipfile.ZIP_DEFLATED)
    change(path)
    with pytest.raises(CheckpointError, match="bomb"):
        unpacked(path, tmp_path)
    assert sum(p.stat().st_size for p in (tmp_path / "target").rglob("*") if p.is_file()) <= 2**20


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 3)
    assert "more than 3 entries" in refusal(pack(tmp_path / "a.zip", {f"{i}": NOTE for i in range(4)}), tmp_path)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MARGIN", 2**62)
    assert "free" in refusal(pack(tmp_path / "a.zip", {"a.bin": WEIGHTS}), tmp_path)


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_a_changed_byte_is_found(packed: int, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bin": WEIGHTS}, packed=packed)
    data = bytearray(path.read_bytes())
    data[60] ^= 0x55
    path.write_bytes(data)
    assert "damaged" in refusal(path, tmp_path)


def test_a_cut_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bin": WEIGHTS})
    path.write_bytes(path.read_bytes()[:-30])
    assert "cut short" in refusal(path, tmp_path)


def test_an_encrypted_or_oddly_packed_entry(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bin": WEIGHTS}, packed=zipfile.ZIP_LZMA)
    assert "method 14" in refusal(path, tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    (tmp_path / "target").rmdir()
    assert "encrypted" in refusal(path, tmp_path)


def test_the_temporary_folder_goes(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bin": WEIGHTS})
    with archives.unpacked(path, tmp_path) as folder:
        assert (folder / "a.bin").read_bytes() == WEIGHTS
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_an_archive(tmp_path: Path) -> None:
    assert archives.is_archive(pack(tmp_path / "a.zip", {"x/pytorch_model.bin": NOTE}))
    assert not archives.is_archive(
        pack(tmp_path / "pytorch_model.bin", {"archive/data.pkl": NOTE, "archive/version": b"3"})
    )
    (tmp_path / "other").write_bytes(NOTE)
    assert not archives.is_archive(tmp_path / "other")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
    assert archives.is_archive(tmp_path / "cut.zip")
