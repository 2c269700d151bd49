"""One file: cut off and resumed, checked, refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.serving import Site, git_hash, serve

from gama.errors import CheckpointError, GamaError
from gama.hub import disk, transfer
from gama.hub.transfer import Digest, Refused, Remote, digest_of, fetch, part_of

CONTENT = os.urandom(300_000)
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/w.bin": CONTENT})) as served:
        yield served


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "w.bin"


def alone(target: Path) -> bool:
    return [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_arrives_whole(site: Site, target: Path) -> None:
    counted: list[int] = []
    fetch(Remote(f"{site.url}/w.bin", len(CONTENT), SHA256), target, advance=counted.append)
    assert target.read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)
    assert alone(target)


def test_cut_in_mid_file_goes_on_in_the_same_run(site: Site, target: Path) -> None:
    site.cuts["/w.bin"] = [100_000, 50_000]
    counted: list[int] = []
    fetch(Remote(f"{site.url}/w.bin", None, SHA256), target, advance=counted.append)
    assert target.read_bytes() == CONTENT
    assert site.ranges_of("/w.bin") == [None, "bytes=100000-", "bytes=150000-"]
    assert sum(counted) == len(CONTENT)


@pytest.mark.parametrize("digest", [SHA256, None], ids=["hash known", "hash unknown"])
def test_a_second_run_continues_the_first(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch, digest: Digest | None
) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 0)
    site.cuts["/w.bin"] = [120_000]
    with pytest.raises(GamaError, match="120000 bytes are kept, run again"):
        fetch(Remote(f"{site.url}/w.bin", len(CONTENT), digest), target)
    assert not target.exists()
    assert part_of(target).read_bytes() == CONTENT[:120_000]
    assert transfer.missing_bytes(Remote("", len(CONTENT)), target) == len(CONTENT) - 120_000
    fetch(Remote(f"{site.url}/w.bin", len(CONTENT), digest), target)
    assert site.ranges_of("/w.bin") == [None, "bytes=120000-"]
    assert target.read_bytes() == CONTENT
    assert alone(target)


def test_a_file_that_changed_between_two_runs_is_fetched_anew(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 0)
    site.cuts["/w.bin"] = [120_000]
    with pytest.raises(GamaError):
        fetch(Remote(f"{site.url}/w.bin"), target)
    site.files["/w.bin"] = other = os.urandom(200_000)
    fetch(Remote(f"{site.url}/w.bin"), target)
    assert target.read_bytes() == other


def test_without_validator_and_hash_halves_are_not_joined(
    site: Site, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ATTEMPTS", 0)
    site.etags, site.cuts["/w.bin"] = False, [120_000]
    with pytest.raises(GamaError):
        fetch(Remote(f"{site.url}/w.bin"), target)
    fetch(Remote(f"{site.url}/w.bin"), target)
    assert site.ranges_of("/w.bin") == [None, None]
    assert target.read_bytes() == CONTENT


def test_server_without_ranges_starts_over(site: Site, target: Path) -> None:
    site.ranges, site.cuts["/w.bin"] = False, [100_000]
    counted: list[int] = []
    fetch(Remote(f"{site.url}/w.bin", len(CONTENT), SHA256), target, advance=counted.append)
    assert target.read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)


def test_part_that_is_whole_or_longer(site: Site, target: Path) -> None:
    part_of(target).write_bytes(CONTENT)
    fetch(Remote(f"{site.url}/w.bin", len(CONTENT), SHA256), target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    part_of(target).write_bytes(CONTENT + b"more")
    fetch(Remote(f"{site.url}/w.bin", len(CONTENT), SHA256), target)
    assert target.read_bytes() == CONTENT


def test_wrong_hash_leaves_nothing(site: Site, target: Path) -> None:
    with pytest.raises(CheckpointError, match=f"its sha256 hash is {SHA256.value}, 0000"):
        fetch(Remote(f"{site.url}/w.bin", len(CONTENT), Digest("sha256", "0" * 64)), target)
    assert list(target.parent.iterdir()) == []


def test_wrong_size_is_told_before_anything_arrives(site: Site, target: Path) -> None:
    with pytest.raises(CheckpointError, match="the server has 300000 bytes, 7 were expected"):
        fetch(Remote(f"{site.url}/w.bin", 7), target)
    assert not part_of(target).exists()


def test_small_disk_is_told_before_anything_arrives(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_space", lambda folder: 200_000 + 64 * 2**20)
    with pytest.raises(GamaError, match="300 kB are needed, 67.3 MB are free"):
        fetch(Remote(f"{site.url}/w.bin"), target)
    assert not part_of(target).exists()


def test_busy_server_is_asked_again_and_a_refusal_is_not(site: Site, target: Path) -> None:
    site.statuses["/w.bin"] = [503, 429]
    fetch(Remote(f"{site.url}/w.bin", len(CONTENT), SHA256), target)
    site.statuses["/w.bin"] = [403]
    with pytest.raises(Refused, match="answered 403"):
        fetch(Remote(f"{site.url}/w.bin"), target.with_name("other"))
    assert len(site.ranges_of("/w.bin")) == 4


def test_nobody_there(target: Path) -> None:
    with serve(Site()) as closed:
        url = closed.url
    with pytest.raises(GamaError, match=r"refused.*gama doctor"):
        fetch(Remote(f"{url}/w.bin"), target)


def test_a_secret_is_for_the_first_host_alone(site: Site, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gama.hub.addresses.is_public", lambda address: True)
    with serve(Site(files={"/w.bin": CONTENT})) as other:
        site.redirects["/gate"] = f"{other.url}/w.bin"
        fetch(Remote(f"{site.url}/gate", secret={"Authorization": "Bearer t"}), target)
        assert site.requests[-1][2]["authorization"] == "Bearer t"
        assert "authorization" not in other.requests[-1][2]


def test_git_hash(tmp_path: Path) -> None:
    file = tmp_path / "small"
    file.write_bytes(b"hello\n")
    assert digest_of(file, "git") == git_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
