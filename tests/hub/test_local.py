"""Names of fetched models where a folder is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError

TABLE = """
forge:
  summary: "a model"
  license: mit
  urls: [{url: "https://example.org/config.json", name: config.json, sha256: null}]
parts:
  summary: "files of its authors"
  license: mit
  urls: [{url: "https://example.org/a.bin", name: a.bin, sha256: null}]
  next: ["gama convert --audio {path}/a.bin -o done"]
shelf:
  summary: "a repository"
  license: mit
  hub: {repo: somebody/shelf}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gama home with the table above."""
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("GAMA_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models.yaml").write_text(TABLE)
    return tmp_path / "home"


def test_a_fetched_model_is_known_by_its_name(home: Path) -> None:
    shutil.copytree(model_folder(), home / "models" / "forge")
    assert model_folder("forge") == home / "models" / "forge"
    shutil.copytree(model_folder(), home / "models" / "unlisted")
    assert model_folder("unlisted") == home / "models" / "unlisted"


def test_a_folder_of_that_name_goes_before_it(home: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder(), home / "models" / "forge")
    shutil.copytree(model_folder(), tmp_path / "forge")
    assert model_folder("forge") == Path("forge")


@pytest.mark.parametrize("name", ["forge", "shelf"])
def test_a_known_model_that_is_not_here_says_how_to_fetch_it(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"the model '{name}' is not on this disk \(gama pull {name}\)"):
        model_folder(name)


def test_files_of_the_authors_have_to_be_converted(home: Path) -> None:
    folder = home / "models" / "parts"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"converted first \(gama convert --audio .*parts/a.bin -o done\)"):
        model_folder("parts")


@pytest.mark.parametrize("name", ["maxi", "runs/none", "./none", "/none/none", "owner/name/more"])
def test_a_name_nobody_knows(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"no model '{name}': neither a folder nor a known name"):
        model_folder(name)


def test_a_repository_in_the_hubs_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--somebody--shelf"
    commit = "c" * 40
    shutil.copytree(model_folder(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for name in ("shelf", "somebody/shelf"):
        assert model_folder(name) == repository / "snapshots" / commit
