"""Files are written whole or not at all, and only where they may be."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gama import atomic
from gama.errors import GamaError, OutputError

posix = pytest.mark.skipif(os.name != "posix", reason="FIFOs and permissions as POSIX has them")


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_texts_bytes_and_json_are_written_whole(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "a", "über\n")
    atomic.write_bytes(tmp_path / "b", b"\x00\xff")
    atomic.write_json(tmp_path / "c", {"é": [1, 2]})
    with atomic.open_text(tmp_path / "d", durable=True) as file:
        file.write("one\ntwo\n")
    assert (tmp_path / "a").read_bytes() == "über\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert (tmp_path / "c").read_bytes() == '{"é": [1, 2]}\n'.encode()
    assert (tmp_path / "d").read_bytes() == b"one\ntwo\n"
    assert listed(tmp_path) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_after_an_exception_the_old_file_is_there_and_no_other(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(type(error)), atomic.open_text(tmp_path / "a") as file:
        file.write("new")
        raise error
    with pytest.raises(type(error)), atomic.replacing(tmp_path / "a") as partial:
        partial.write_text("new")
        raise error
    assert (tmp_path / "a").read_text() == "old"
    assert listed(tmp_path) == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("call", ["write", "replace", "fsync"])
def test_an_error_of_the_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    (tmp_path / "a").write_text("old")

    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    def write() -> None:
        with atomic.open_binary(tmp_path / "a", durable=True) as file:
            file.write(b"new")
            if call == "write":
                fails()

    if call != "write":
        monkeypatch.setattr(os, call, fails)
    with pytest.raises(OutputError) as raised:
        write()
    monkeypatch.undo()
    assert str(raised.value).startswith(f"{tmp_path / 'a'}: cannot be written: ")
    assert raised.value.hint
    assert "\n" not in str(raised.value)
    assert (tmp_path / "a").read_text() == "old"
    assert listed(tmp_path) == ["a"]


def test_a_full_disk_told_by_a_rust_library_names_the_file(tmp_path: Path) -> None:
    said = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(OutputError, match="no space is left on the disk"), atomic.replacing(tmp_path / "a"):
        raise said
    assert listed(tmp_path) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic.open_text(tmp_path / "a"):
        (tmp_path / "elsewhere").read_text()
    assert listed(tmp_path) == []


@posix
def test_permissions_of_a_replaced_file_stay_and_a_new_file_has_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "usual").write_text("")
    atomic.write_text(tmp_path / "old", "new")
    with atomic.replacing(tmp_path / "new") as partial:
        partial.unlink()
        os.close(os.open(partial, os.O_CREAT, 0o600))  # as safetensors does
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@posix
def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("old")
    (tmp_path / "one").symlink_to("folder/file")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "dangling").symlink_to("folder/made")
    atomic.check_output(tmp_path / "two")
    atomic.write_text(tmp_path / "two", "new")
    atomic.write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "one").is_symlink()
    assert (tmp_path / "two").is_symlink()
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert (tmp_path / "folder" / "made").read_text() == "made"


@posix
def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for refused in (atomic.check_output, lambda path: atomic.write_text(path, "new")):
        with pytest.raises(OutputError, match="circle"):
            refused(tmp_path / "a")


@posix
@pytest.mark.parametrize("by_name", [False, True])
def test_a_fifo_is_written_to_and_stays(tmp_path: Path, by_name: bool) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    atomic.check_output(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    if by_name:
        with atomic.replacing(fifo) as partial:
            partial.write_bytes(b"through")
    else:
        atomic.write_bytes(fifo, b"through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert listed(tmp_path) == ["fifo"]


@posix
def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    before = os.stat("/dev/null")
    for path in (Path("/dev/null"), link):
        atomic.check_output(path, inputs=[Path("/dev/null")])
        atomic.write_text(path, "gone")
        with atomic.replacing(path) as partial:
            partial.write_text("gone")
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    assert os.stat("/dev/null").st_ino == before.st_ino
    assert os.listdir("/dev").count("null") == 1


@posix
def test_a_full_device_is_named() -> None:
    with pytest.raises(OutputError, match="/dev/full: cannot be written: no space is left on the disk"):
        atomic.write_text(Path("/dev/full"), "new")


@posix
def test_stdout_goes_on_where_it_is(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from gama import atomic; print('before', flush=False); "
    code += "[atomic.write_text(Path(p), p + '\\n') for p in ('/dev/stdout', '/dev/fd/1', '/proc/self/fd/1')]; "
    code += "print('after')"
    out = tmp_path / "out"
    out.write_text("kept\n")
    with out.open("ab") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True, timeout=60)
    assert out.read_text().splitlines() == ["kept", "before", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "after"]


def test_a_long_name_has_a_temporary_one(tmp_path: Path) -> None:
    name = "é" * 127
    atomic.write_text(tmp_path / name, "new")
    assert listed(tmp_path) == [name]
    for write in (lambda path: atomic.check_output(path), lambda path: atomic.write_text(path, "")):
        with pytest.raises(OutputError, match="too long"):
            write(tmp_path / ("a" * 300))


def test_an_input_is_no_output_by_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "rows.json"
    given.write_text("[]")
    os.link(given, tmp_path / "hard.json")
    (tmp_path / "soft.json").symlink_to(given)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    names = ["rows.json", "./rows.json", "sub/../rows.json", str(given), "hard.json", "soft.json"]
    for name in names:
        with pytest.raises(OutputError, match="is an input of this command"):
            atomic.check_output(Path(name), [Path("other"), given])
    atomic.check_output(Path("other.json"), [given])
    assert given.read_text() == "[]"


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    refused = {
        tmp_path: "is a folder",
        tmp_path / "none" / "a": "does not exist",
        tmp_path / "file" / "a": "a file stands where a folder was expected",
        tmp_path / "a\0b": "null character",
    }
    for path, why in refused.items():
        with pytest.raises(OutputError, match=why):
            atomic.check_output(path)
    atomic.check_output(tmp_path / "none" / "a", make_folder=True)
    with pytest.raises(GamaError, match="a file stands where"):
        atomic.check_output(tmp_path / "file" / "none" / "a", make_folder=True)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(OutputError, match=f"the folder {tmp_path} may not be written"):
        atomic.check_output(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "file")
    with pytest.raises(OutputError, match="exists and may not be written"):
        atomic.check_output(tmp_path / "file")
    assert listed(tmp_path) == ["file"]


def test_folders_to_write_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    atomic.check_output_folder(tmp_path)
    atomic.check_output_folder(tmp_path / "a" / "b")
    with pytest.raises(OutputError, match="is a file"):
        atomic.check_output_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="is an input"):
        atomic.check_output_folder(tmp_path, [tmp_path / ".." / tmp_path.name])
    with pytest.raises(OutputError, match="is a file"):
        atomic.make_folder(tmp_path / "file")
    assert listed(tmp_path) == ["file"]


@posix
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        with pytest.raises(OutputError, match="is a socket"):
            atomic.check_output(tmp_path / "s")
