"""Named models from plain addresses and from a hub: resumed, checked, refused, offline; listed and removed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub.serving import COMMIT, Repo, Site, serve

from gama.errors import CheckpointError, GamaError, LockedError
from gama.hub import disk, transfer
from gama.hub.cache import kept, kept_named, remove
from gama.hub.pull import RECORD, pull, unchecked
from gama.hub.table import Entry, HubSource, UrlFile
from gama.locks import locked

BIG = os.urandom(200_000)
SHA256 = hashlib.sha256(BIG).hexdigest()
FILES = {"ckpt/model.bin": BIG, "ckpt/config.json": b"{}", "ckpt/optimizer.bin": b"no", "README.md": b"read"}


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """gama's folder and the hub's cache for this test alone, and a hub that may be asked."""
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    repo = Repo(dict(FILES), kind="spaces")
    with serve(Site(files={"/model.bin": BIG}, repos={"them/gama": repo})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def plain(site: Site, **changes: object) -> Entry:
    facts: dict[str, object] = {"size": len(BIG), "sha256": SHA256} | changes
    return Entry("mine", "mine", "MIT", "", (UrlFile(f"{site.url}/model.bin", "model.bin", **facts),))  # type: ignore[arg-type]


def entry(**changes: object) -> Entry:
    facts: dict[str, object] = {"type": "space", "revision": COMMIT, "files": ("ckpt/model.bin", "*.json")} | changes
    return Entry("ours", "ours", "MIT", "https://hub.example/them/gama", HubSource("them/gama", **facts))  # type: ignore[arg-type]


# -- plain addresses -------------------------------------------------------------------------------------------------


def test_plain_address_into_gamas_folder_and_again(site: Site) -> None:
    done = pull(plain(site))
    assert done.path == disk.models_folder() / "mine"
    assert (done.path / "model.bin").read_bytes() == BIG
    assert unchecked(done) == []
    told = json.loads((done.path / RECORD).read_text())
    assert (told["name"], told["license"], told["files"][0]["sha256"]) == ("mine", "MIT", SHA256)
    asked = len(site.requests)
    assert pull(plain(site)) == done
    assert len(site.requests) == asked


def test_plain_address_without_hash_is_told(site: Site, tmp_path: Path) -> None:
    done = pull(plain(site, size=None, sha256=None), to=tmp_path / "there")
    assert unchecked(done) == ["model.bin"]
    assert done.files[0].sha256 == SHA256


def test_a_cut_leaves_no_half_folder_and_is_continued(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 0)
    site.cuts["/model.bin"] = [150_000]
    with pytest.raises(GamaError, match="150000 bytes are kept"):
        pull(plain(site), to=tmp_path / "there")
    assert not (tmp_path / "there").exists()
    pull(plain(site), to=tmp_path / "there")
    assert site.ranges_of("/model.bin") == [None, "bytes=150000-"]
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [RECORD, "model.bin"]
    assert not (tmp_path / "there.part").exists()


def test_wrong_hash(site: Site, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hash"):
        pull(plain(site, sha256="0" * 64), to=tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_too_small_a_disk_is_told_before_anything_is_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_space", lambda folder: 100_000)
    with pytest.raises(GamaError, match="200 kB are needed, 100 kB are free"):
        pull(plain(site), to=tmp_path / "there")
    assert site.requests == []


def test_a_folder_of_something_else_is_left_alone(site: Site, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "thesis.txt").write_text("years")
    with pytest.raises(GamaError, match="is not mine"):
        pull(plain(site), to=there)
    (there / "model.bin").write_bytes(b"?" * len(BIG))
    with pytest.raises(CheckpointError, match="hash"):
        pull(plain(site), to=there)
    assert sorted(path.name for path in there.iterdir()) == ["model.bin", "thesis.txt"]


def test_what_a_browser_has_to_fetch() -> None:
    with pytest.raises(GamaError, match=r"only a browser.*https://drive\.example"):
        pull(Entry("drive", "d", "?", "", "https://drive.example"))


# -- the hub -----------------------------------------------------------------------------------------------------------


def test_hub_into_its_cache_where_everybody_finds_it(site: Site) -> None:
    done = pull(entry())
    assert [(file.path, file.checked) for file in done.files] == [("ckpt/model.bin", True), ("ckpt/config.json", True)]
    assert (done.path / "ckpt/model.bin").read_bytes() == BIG
    assert not (done.path / "ckpt/optimizer.bin").exists()
    blobs = {path.name for path in (done.path.parents[1] / "blobs").iterdir()}
    assert SHA256 in blobs and not any(name.endswith((".part", ".json")) for name in blobs)
    local = huggingface_hub.hf_hub_download(
        "them/gama", "ckpt/model.bin", repo_type="space", revision=COMMIT, local_files_only=True
    )
    assert Path(local).samefile(done.path / "ckpt/model.bin")


def test_nothing_on_the_terminal_of_a_program(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    pull(entry())
    assert capfd.readouterr() == ("", "")


def big_path(site: Site) -> str:
    return f"/spaces/them/gama/resolve/{COMMIT}/ckpt/model.bin"


def test_hub_file_cut_in_the_middle_goes_on_in_the_next_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 0)
    site.cuts[big_path(site)] = [90_000]
    with pytest.raises(GamaError, match="90000 bytes are kept"):
        pull(entry())
    (cut,) = [row for row in kept({"ours": entry()}) if row.where == "hub"]
    assert (cut.name, cut.whole) == ("them/gama", False)
    done = pull(entry())
    assert site.ranges_of(big_path(site)) == [None, "bytes=90000-"]
    assert (done.path / "ckpt/model.bin").read_bytes() == BIG


def test_hub_with_a_folder_of_ones_own(site: Site, tmp_path: Path) -> None:
    done = pull(entry(), to=tmp_path / "there")
    names = sorted(path.relative_to(done.path).as_posix() for path in done.path.rglob("*") if path.is_file())
    assert names == ["ckpt/config.json", "ckpt/model.bin", RECORD]
    assert json.loads((done.path / RECORD).read_text())["commit"] == COMMIT
    assert not (tmp_path / "hf").exists()


def test_hub_content_is_checked_and_a_bad_file_does_not_stay(site: Site) -> None:
    site.repos["them/gama"].hashes["ckpt/model.bin"] = "1" * 64
    with pytest.raises(CheckpointError, match="1111 was expected"):
        pull(entry())
    assert [row for row in kept({}) if row.where == "hub" and row.size] == []


def test_a_file_that_went_bad_in_the_cache_is_fetched_again(site: Site) -> None:
    done = pull(entry())
    blob = (done.path / "ckpt/model.bin").resolve()
    blob.write_bytes(b"?" * len(BIG))
    with pytest.raises(CheckpointError, match="hash"):
        pull(entry())
    assert (pull(entry()).path / "ckpt/model.bin").read_bytes() == BIG


def test_hub_and_table_that_disagree(site: Site) -> None:
    with pytest.raises(CheckpointError, match=r"on the hub, the table of models says 2222.*nothing was fetched"):
        pull(entry(sha256={"ckpt/model.bin": "2" * 64}))
    assert site.ranges_of(big_path(site)) == []


def test_hub_and_too_small_a_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_space", lambda folder: 150_000)
    with pytest.raises(GamaError, match="200 kB are needed"):
        pull(entry())
    assert site.ranges_of(big_path(site)) == []


@pytest.mark.parametrize("revision", [COMMIT, "main"])
@pytest.mark.parametrize("way", ["offline", "unreachable", "unresolved"])
def test_without_a_hub_the_cache_serves(site: Site, monkeypatch: pytest.MonkeyPatch, way: str, revision: str) -> None:
    done = pull(entry(revision=revision))
    if way == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    elif way == "unresolved":
        monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    else:
        with serve(Site()) as closed:
            monkeypatch.setenv("HF_ENDPOINT", closed.url)
    again = pull(entry(revision=revision))
    assert again.path == done.path
    assert {file.path for file in again.files} == {file.path for file in done.files}
    assert unchecked(again) == []


def test_without_a_hub_and_without_a_cache(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serve(Site()) as closed:
        monkeypatch.setenv("HF_ENDPOINT", closed.url)
    with pytest.raises(GamaError, match="cannot be reached"):
        pull(entry())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(GamaError, match="HF_HUB_OFFLINE"):
        pull(entry())


def test_gated(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.repos["them/gama"].gated = "hf_right"
    with pytest.raises(GamaError) as error:
        pull(entry())
    for words in ("accept it at https://hub.example/them/gama", "hf auth login", "HF_TOKEN", "/settings/tokens"):
        assert words in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert (pull(entry()).path / "ckpt/model.bin").read_bytes() == BIG


def test_no_such_repository_or_file(site: Site) -> None:
    with pytest.raises(GamaError, match=r"other/gama: no space of that name"):
        pull(Entry("x", "x", "?", "", HubSource("other/gama", "space")))
    with pytest.raises(CheckpointError, match="holds no file like absent"):
        pull(entry(files=("absent.bin",)))


def test_a_hub_that_sends_to_a_private_network(site: Site) -> None:
    site.redirects[big_path(site)] = "https://192.168.0.1/model.bin"
    with pytest.raises(GamaError, match="no public address"):
        pull(entry())
    site.redirects = {f"/api/spaces/them/gama/revision/{COMMIT}": "https://10.0.0.1/api"}
    with pytest.raises(GamaError, match="no public address"):
        pull(entry())


def test_a_mirror_by_plain_http_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://10.0.0.1:8080")
    with pytest.raises(GamaError, match="plain http"):
        pull(entry())


# -- two at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["address", "folder", "cache"])
def test_two_pulls_of_one_model_fetch_it_once(site: Site, tmp_path: Path, way: str) -> None:
    """The second one waits for the first, and finds what it has fetched."""
    wanted = plain(site) if way == "address" else entry()
    to = None if way == "cache" else tmp_path / "there"
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: pull(wanted, to=to), range(2))
    assert first.path == second.path
    assert [(f.path, f.size, f.checked) for f in first.files] == [(f.path, f.size, f.checked) for f in second.files]
    gets = [path for method, path, _ in site.requests if method == "GET" and path.endswith("model.bin")]
    assert len(gets) == 1
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".lock", ".part", ".tmp"))]


def test_a_model_that_is_being_fetched_is_not_removed(site: Site) -> None:
    pull(plain(site))
    (row,) = kept_named("mine", {})
    with locked(row.path, "this model"), pytest.raises(LockedError, match=r"mine: this process .*this model"):
        remove(row)
    assert (row.path / "model.bin").is_file()
    remove(row)
    assert not row.path.exists()


def test_a_whole_cache_is_not_written_to(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lie where nothing can be written."""
    done = pull(entry())
    monkeypatch.setattr("gama.hub.pull.sole_writer", lambda folder: pytest.fail("locked"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "hf").rglob("*")}
    assert pull(entry()) == done
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "hf").rglob("*")} == before


# -- what lies on the disk ---------------------------------------------------------------------------------------------


def test_list_and_remove(site: Site, tmp_path: Path) -> None:
    other = Entry("notes", "n", "MIT", "", HubSource("them/gama", "space", COMMIT, ("README.md",)))
    table = {"ours": entry(), "notes": other}
    pull(plain(site))
    pull(entry())
    pull(other)
    rows = {row.name: row for row in kept(table)}
    assert {name: row.where for name, row in rows.items()} == {
        "mini": "package", "mine": "gama", "ours": "hub", "notes": "hub"
    }  # fmt: skip
    assert rows["ours"].size == len(BIG) + 2
    assert rows["notes"].size == 4
    assert len(BIG) < rows["mine"].size < len(BIG) + 1000
    (ours,) = kept_named("ours", table)
    remove(ours)
    assert {row.name for row in kept(table)} == {"mini", "mine", "notes"}
    assert not any(path.name == SHA256 for path in (tmp_path / "hf").rglob("*"))
    remove(kept_named("notes", table)[0])
    remove(kept_named("mine", table)[0])
    assert {row.name for row in kept(table)} == {"mini"}
    assert list((tmp_path / "hf").glob("spaces--*")) == []
    for name, words in (("mine", "nothing called"), ("mini", "part of the package")):
        with pytest.raises(GamaError, match=words):
            kept_named(name, table)
