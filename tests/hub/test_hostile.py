"""A server that lies: nothing outside the folder of models is made, changed or deleted, and each lie is one line."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hub.serving import COMMIT, Repo, Site, git_hash, serve
from torture.hostile_hub import run

from gama.errors import CheckpointError, GamaError
from gama.hub import disk, transfer
from gama.hub.cache import kept_named, remove
from gama.hub.names import check_apart, inner_path, repository
from gama.hub.pull import RECORD, pull
from gama.hub.table import Entry, HubSource, UrlFile, entry_named
from gama.hub.transfer import Digest, Remote, fetch, part_of

CONTENT = os.urandom(50_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user outside the folders of models."""
    file = tmp_path / "victim.txt"
    file.write_text("mine")
    return file


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with serve(
        Site(files={"/w.bin": CONTENT}, repos={"them/gama": Repo({"model.bin": CONTENT, "a.json": b"{}"})})
    ) as s:
        monkeypatch.setenv("HF_ENDPOINT", s.url)
        yield s


ENTRY = Entry("ours", "ours", "MIT", "", HubSource("them/gama"))


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, every folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def listing(**changes: Any) -> dict[str, Any]:
    """A listing of one large file, with something changed: keys of the file, or ``sha``, ``siblings``."""
    lfs = {"sha256": changes.pop("sha256", SHA256), "size": changes.pop("size", len(CONTENT))}
    row = {"rfilename": "model.bin", "size": len(CONTENT), "blobId": git_hash(CONTENT), "lfs": lfs}
    told = {"sha": changes.pop("sha", COMMIT)}
    if "siblings" in changes:
        return told | changes
    return told | {"siblings": [row | changes]}


# -- what becomes part of a path ---------------------------------------------------------------------------------------

NO_NAMES = [
    "../../victim.txt", "/etc/passwd", "a/../../victim.txt", "..", "C:\\x", "C:x", "a\\..\\b", "a:stream", "", ".",
    "./a", "a//b", "a/", "a\0b", "a\nb", "a\x1b[31m", "a\x7f", "con", "sub/NUL.txt", "lpt1", "COM²", "a.", "b ",
    "\ud800", "x" * 241, "/".join(["x" * 200] * 6), None, 5, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_file_name(name: object) -> None:
    with pytest.raises(GamaError, match=r"^\S+: the file name .{1,130}$"):
        inner_path(name, "hub")


@pytest.mark.parametrize(
    "name", ["model.bin", "a/b/c-1.2_x.json", ".gitattributes", "ü/音.txt", "console.log", "a..b", "~"]
)
def test_file_names(name: str) -> None:
    assert inner_path(name, "hub") == name


@pytest.mark.parametrize(
    "name", ["../x", "a/..", "a/b/c", "a", "a/b--c", "a b/c", "/a", "a/", "./a", "a/" + "b" * 95, "ä/b"]
)
def test_no_repository(name: str) -> None:
    with pytest.raises(GamaError, match="is no repository of the hub"):
        repository(name)


@pytest.mark.parametrize(("paths", "place"), [(["a", "a"], "a"), (["a", "a/b"], "a/b"), (["a/b/c", "a"], "a")])
def test_two_files_in_one_place(paths: list[str], place: str) -> None:
    with pytest.raises(GamaError, match=f"two files want the place '{place}'"):
        check_apart(paths, "hub")
    check_apart(["a/b", "a/c", "ab"], "hub")


LIES = [
    *({"sha256": v} for v in ("../../../victim.txt", "/etc/passwd", SHA256.upper(), SHA256[:-1], 5, None, [SHA256])),
    *({"lfs": None, "blobId": v} for v in ("../../../../victim.txt", "..", SHA256, COMMIT.upper()[::-1], None, {})),
    *({"sha": value} for value in ("../../../victim.txt", "main", COMMIT[:7], COMMIT + "0", 7, None)),
    *({"rfilename": value} for value in NO_NAMES),
    *({"size": value} for value in (-1, 2**60, 1.5, True, "5", None)),
    *({"lfs": value} for value in ("x", [1], 3)),
    *({"siblings": value} for value in (None, "x", [5], {"a": 1})),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=str)
@pytest.mark.parametrize("into", ["cache", "folder"])
def test_what_the_hub_tells_is_refused(
    site: Site, tmp_path: Path, victim: Path, lie: dict[str, Any], into: str
) -> None:
    site.listings["them/gama"] = listing(**lie)
    before = everything(tmp_path)
    for _ in range(2):  # the second one used to delete
        with pytest.raises(GamaError) as error:
            pull(ENTRY, to=None if into == "cache" else tmp_path / "there")
        assert len(str(error.value)) < 400 and "\n" not in str(error.value)
    assert everything(tmp_path) == before
    assert not [path for _, path, _ in site.requests if "/resolve/" in path]


def test_what_is_told_twice_is_refused(site: Site, tmp_path: Path) -> None:
    rows = listing()["siblings"]
    site.listings["them/gama"] = listing(siblings=[*rows, *rows])
    with pytest.raises(GamaError, match="two files want the place 'model.bin'"):
        pull(ENTRY)
    site.listings["them/gama"] = listing(rfilename=RECORD)
    with pytest.raises(GamaError, match=f"two files want the place '{RECORD}'"):
        pull(ENTRY, to=tmp_path / "there")
    assert everything(tmp_path) == {}


def test_the_etag_and_the_commit_of_a_file_name_nothing(site: Site, tmp_path: Path, victim: Path) -> None:
    """huggingface_hub takes the place of a content from the header ETag."""
    url = f"/them/gama/resolve/{COMMIT}/model.bin"
    head = f'HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\nETag: "../../../victim.txt"\r\n'
    site.raw[url] = [f"{head}X-Repo-Commit: ../../../../victim.txt\r\n\r\n".encode() + CONTENT]
    done = pull(ENTRY)
    assert (done.path / "model.bin").read_bytes() == CONTENT
    assert victim.read_text() == "mine"
    assert {path.name for path in (tmp_path / "hf" / "models--them--gama").iterdir()} == {"blobs", "refs", "snapshots"}


def test_a_bad_file_that_the_cache_only_links_to_is_not_deleted(site: Site, tmp_path: Path, victim: Path) -> None:
    done = pull(ENTRY)
    content = (done.path / "model.bin").resolve()
    content.unlink()
    content.symlink_to(victim)
    with pytest.raises(CheckpointError, match="hash"):
        pull(ENTRY)
    for row in kept_named("them/gama", {}):
        remove(row)
    assert victim.read_text() == "mine"


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(*lines: str, status: str = "200 OK", content: bytes = b"") -> list[bytes]:
    return ["\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + content]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (answer("Content-Range: bytes 0-4/100", "Content-Length: 5", status="206 P", content=b"abcde"), "a part"),
        (answer(status="206 P", content=b"abcde"), "a part of the file"),
        (answer("Content-Length: -5", content=b"abcde"), "states the length '-5'"),
        (answer("Content-Length: +5", content=b"abcde"), r"states the length '\+5'"),
        (answer("Content-Length: 5, 5", content=b"abcde"), "states the length '5, 5'"),
        (answer("Content-Length: \xb2", content=b"ab"), "states the length"),
        (answer("Content-Length: " + "9" * 5000, content=b"ab"), "states the length '999"),
        (answer("Content-Length: 999999999999999999", content=b"ab"), "are needed"),
        (answer("Content-Encoding: gzip", "Content-Length: 5", content=b"abcde"), "coding 'gzip'"),
        (answer("Location: https://[::1", status="302 F"), "which is no address"),
        (answer("Location: https://a b/", status="302 F"), "not an address"),
        (answer("Location: https://\xff\xfe/", status="302 F"), "not an address"),
        (answer("Location: https://x.example:99999/", status="302 F"), "not an address"),
        (answer("Location: file:///etc/passwd", status="302 F"), "only https"),
        (answer("Location: http://8.8.8.8/w.bin", status="302 F"), "plain http"),
        (answer("Location: ftp://example.org/w.bin", status="302 F"), "only https"),
        (answer("Location: https://user:word@example.org/w.bin", status="302 F"), "no user name"),
        (answer(status="302 F"), "answered 302"),
        (answer(status="404 " + "\x1b[31m" * 50), r"answered 404 \\x1b"),
        (answer(status="abc"), "BadStatusLine|abc"),
        ([b"\0" * 100_000], "line|status"),
        (answer("Transfer-Encoding: chunked", content=b"-5\r\nabcde\r\n"), "bytes arrived|IncompleteRead"),
        (answer("Transfer-Encoding: chunked", content=b"zz\r\nabcde\r\n"), "IncompleteRead"),
    ],
)  # fmt: skip
def test_answers_that_are_refused(site: Site, tmp_path: Path, raw: list[bytes], message: str) -> None:
    site.raw["/w.bin"] = raw
    target = tmp_path / "deep" / "folder" / "w.bin"
    with pytest.raises(GamaError, match=message) as error:
        fetch(Remote(f"{site.url}/w.bin"), target)
    assert "word" not in str(error.value) and len(str(error.value)) < 500
    kept = {path.name for path in tmp_path.rglob("*")}
    assert kept in (set(), {"deep", "folder", "w.bin.part", "w.bin.part.json"})
    assert not kept or part_of(target).stat().st_size > 0


@pytest.mark.parametrize(
    ("stated", "length", "message"),
    [
        ("bytes 20000-19999/50000", 30_000, "contradict"),
        ("bytes 20000-49999/40000", 30_000, "contradict"),
        ("bytes 20000-49999/50000", 29_999, "contradict"),
        ("bytes 0-49999/50000", 50_000, "another range"),
        ("bytes 20000-49999/*", 30_000, "another range"),
        ("bytes ٢-٣/٤", 30_000, "another range"),
        ("", 30_000, "another range"),
    ],
)  # fmt: skip
def test_a_rest_that_is_none(site: Site, tmp_path: Path, stated: str, length: int, message: str) -> None:
    target = tmp_path / "w.bin"
    part_of(target).write_bytes(CONTENT[:20_000])
    head = (
        f"HTTP/1.1 206 P\r\nContent-Length: {length}\r\n".encode() + b"Content-Range: " + stated.encode() + b"\r\n\r\n"
    )
    site.raw["/w.bin"] = [head + CONTENT[20_000 : 20_000 + length]]
    with pytest.raises(GamaError, match=message):
        fetch(Remote(f"{site.url}/w.bin", None, Digest("sha256", SHA256)), target)
    assert not target.exists() and part_of(target).read_bytes() == CONTENT[:20_000]


def test_a_rest_in_two_parts_is_joined(site: Site, tmp_path: Path) -> None:
    """A server may send less than was asked for."""
    target = tmp_path / "w.bin"
    part_of(target).write_bytes(CONTENT[:20_000])
    first = answer("Content-Length: 10000", "Content-Range: bytes 20000-29999/50000", status="206 P")
    site.raw["/w.bin"] = Once(site, "/w.bin", [*first, CONTENT[20_000:30_000]])
    fetch(Remote(f"{site.url}/w.bin", None, Digest("sha256", SHA256)), target)
    assert target.read_bytes() == CONTENT
    assert site.ranges_of("/w.bin") == ["bytes=20000-", "bytes=30000-"]


class Once:
    """An answer that is given once; afterwards the site's file is."""

    def __init__(self, site: Site, path: str, pieces: list[bytes]) -> None:
        self.site, self.path, self.pieces = site, path, pieces

    def __iter__(self) -> Iterator[bytes]:
        del self.site.raw[self.path]
        return iter(self.pieces)


class Endless:
    """A body that never ends; counts what was taken of it."""

    def __init__(self, *head: str) -> None:
        self.head = answer(*head)
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.head
        block = b"x" * 2**16
        while True:
            self.sent += len(block)
            yield block


def test_a_body_without_length_ends_at_the_size_that_was_told(site: Site, tmp_path: Path) -> None:
    site.raw[f"/them/gama/resolve/{COMMIT}/model.bin"] = body = Endless()
    with pytest.raises(CheckpointError, match="more than 50000 bytes arrived"):
        pull(ENTRY)
    assert body.sent < 20 * 2**20  # what fits into the buffers of two sockets
    assert everything(tmp_path) == {}
    with pytest.raises(CheckpointError, match="more than 50000 bytes arrived"):
        pull(ENTRY, to=tmp_path / "there")
    assert everything(tmp_path) == {}


def test_a_body_without_length_and_size_ends_before_the_disk_is_full(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.raw["/w.bin"] = Endless()
    monkeypatch.setattr(transfer, "_ROOM", 2**20)
    left = iter([500 * 2**20, 300 * 2**20, 64 * 2**20])
    monkeypatch.setattr(disk, "free_space", lambda folder: next(left))
    with pytest.raises(GamaError, match="1.05 MB are needed, 67.1 MB are free"):
        pull(Entry("plain", "", "", "", (UrlFile(f"{site.url}/w.bin", "w.bin"),)), to=tmp_path / "there")
    assert everything(tmp_path) == {}


def test_a_full_disk_is_no_broken_connection(site: Site, tmp_path: Path) -> None:
    """One request, and the line names the file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(GamaError, match=r"w\.bin\.part: cannot be written: it is larger than a file may be here"):
            fetch(Remote(f"{site.url}/w.bin"), tmp_path / "w.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert len(site.requests) == 1


def test_a_server_that_sends_a_byte_and_hangs_up_is_not_asked_for_ever(site: Site, tmp_path: Path) -> None:
    site.cuts["/w.bin"] = [1] * 10_000
    with pytest.raises(GamaError, match="5 bytes are kept"):
        fetch(Remote(f"{site.url}/w.bin"), tmp_path / "w.bin")
    assert len(site.requests) == 5


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (Endless(), "cannot be reached: the answer has not ended"),
        (answer("Content-Length: 99999999999"), "99999999999 bytes, 67108864 at most"),
        (answer("Content-Length: 5", content=b"{}"), "2 of 5 bytes arrived"),
        (answer("Content-Length: 2", content=b"{]"), "answers no JSON"),
        (answer(content=b"[" * 100_000), "answers no JSON"),
        (answer(content=b'{"sha": ' + b"1" * 10_000 + b"}"), "answers no JSON"),
        (answer(content=b"\xff\xfe\xff"), "answers no JSON"),
        (answer(content=b"[]"), "answers a list"),
        (answer("X-Error-Message: \x1b[31mred", status="500 no"), "answered: 500 no: "),
        (answer("Location: https://10.0.0.1/", status="307 F"), "no public address"),
        (answer("Location: file:///etc/passwd", status="307 F"), "only https"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:20],
)  # fmt: skip
def test_listings_that_are_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: Any, message: str
) -> None:
    site.raw["/api/models/them/gama/revision/main"] = raw
    with pytest.raises(GamaError, match=message) as error:
        pull(ENTRY)
    assert "\x1b" not in str(error.value)
    assert everything(tmp_path) == {}


def test_the_token_is_for_the_hub_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    monkeypatch.setattr("gama.hub.addresses.is_public", lambda address: True)
    with serve(Site(repos=site.repos)) as other:
        site.redirects["/api/models/them/gama/revision/main"] = f"{other.url}/api/models/them/gama/revision/main"
        site.redirects[f"/them/gama/resolve/{COMMIT}/model.bin"] = f"{other.url}/them/gama/resolve/{COMMIT}/model.bin"
        pull(ENTRY)
    assert {headers.get("authorization") for _, _, headers in site.requests} == {"Bearer hf_right"}
    assert len(other.requests) == 2
    assert not any("authorization" in headers for _, _, headers in other.requests)


def test_a_token_that_is_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_\u00e4 \u2026")
    with pytest.raises(GamaError, match="token for the hub holds characters"):
        pull(ENTRY)
    assert site.requests == []


def test_an_unfinished_folder_of_somebody_else_is_left_alone(site: Site, tmp_path: Path) -> None:
    """``there.part`` would become ``there``, and take along what lies in it."""
    (tmp_path / "there.part").mkdir()
    (tmp_path / "there.part" / "thesis.txt").write_text("years")
    before = everything(tmp_path)
    with pytest.raises(GamaError, match=r"thesis\.txt: lies where the unfinished folder would be"):
        pull(ENTRY, to=tmp_path / "there")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("way", ["absent", "refused", "other content"])
def test_no_empty_folders_are_left(site: Site, tmp_path: Path, way: str) -> None:
    entry = Entry("plain", "", "", "", (UrlFile(f"{site.url}/w.bin", "a/b/w.bin", len(CONTENT), "0" * 64),))
    if way == "other content":
        part_of(tmp_path / "there").mkdir()
        (tmp_path / "there.part" / "a" / "b").mkdir(parents=True)
        (tmp_path / "there.part" / "a" / "b" / "w.bin.part").write_bytes(CONTENT[:100])  # of an earlier run
    elif way == "refused":
        site.statuses["/w.bin"] = [403]
    else:
        site.files.clear()
    with pytest.raises(GamaError):
        pull(entry, to=tmp_path / "there")
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "https://[bad",
        "https://a\nb/c",
        "https://x:99999/w",
        "ftp://x/w.bin",
        "https://",
        "https://h/",
        "a b/c",
        "a/b@../x",
    ],
)
def test_addresses_and_names_of_the_user(site: Site, name: str, tmp_path: Path) -> None:
    with pytest.raises(GamaError):
        pull(entry_named(name, {}))
    assert everything(tmp_path) == {}


def test_an_address_with_spaces_and_letters_beyond_ascii(site: Site, tmp_path: Path) -> None:
    site.files["/gr%C3%BC%C3%9Fe%20an/w%C3%BC.bin"] = CONTENT
    done = pull(entry_named(f"{site.url}/grüße an/wü.bin", {}), to=tmp_path / "there")
    assert (done.path / "wü.bin").read_bytes() == CONTENT


def test_lies_at_random() -> None:
    """A sample of the battery of ``tests/torture/hostile_hub.py``."""
    assert run(1, 60).failures == ()
