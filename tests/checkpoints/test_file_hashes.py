"""``gama_files.json``: what a folder was when it was written, compared at load and by ``gama inspect --verify``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import gama
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.file_hashes import FILE, check_files, record, verify
from gama.errors import CheckpointError
from gama_cli.main import cli


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two kinds of files, one of them in a folder of its own."""
    made = tmp_path / "model"
    (made / "tower").mkdir(parents=True)
    (made / "config.json").write_text('{"eps": 1e-5}')
    (made / "model.safetensors").write_bytes(bytes(1000))
    (made / "tower" / "config.json").write_text("{}")
    (made / "README.md").write_text("words")
    record(made)
    return made


def test_the_record(folder: Path) -> None:
    rows = json.loads((folder / FILE).read_text())["files"]
    assert list(rows) == ["config.json", "model.safetensors", "tower/config.json"]
    assert rows["model.safetensors"] == {
        "bytes": 1000,
        "sha256": "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53",
    }
    assert verify(folder).files == tuple(rows) and verify(folder).unlisted == ()


def test_what_loading_sees(folder: Path) -> None:
    check_files(folder)
    (folder / "README.md").write_text("other words")
    check_files(folder)
    flipped = bytearray((folder / "model.safetensors").read_bytes())
    flipped[500] ^= 1
    (folder / "model.safetensors").write_bytes(flipped)
    check_files(folder)  # of weights the size alone
    with pytest.raises(
        CheckpointError, match="model.safetensors: was changed since it was written: sha256 541b3e9daa09"
    ):
        verify(folder)
    (folder / "model.safetensors").write_bytes(bytes(999))
    with pytest.raises(CheckpointError, match=r"model.safetensors: 999 bytes, 1,000 were written \(download it again"):
        check_files(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors is missing"):
        check_files(folder)


def test_another_epsilon_of_the_same_length(folder: Path) -> None:
    (folder / "config.json").write_text('{"eps": 1e-4}')
    with pytest.raises(CheckpointError, match=rf"config.json: was changed.*delete .*{FILE}"):
        check_files(folder)
    (folder / FILE).unlink()
    check_files(folder)
    with pytest.raises(CheckpointError, match="has no gama_files.json"):
        verify(folder)


def test_one_file_recorded_anew(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "more.json").write_text("{}")
    record(folder, only=("config.json",))
    check_files(folder)
    assert verify(folder).unlisted == ("more.json",)
    (folder / FILE).unlink()
    record(folder, only=("config.json",))
    assert not (folder / FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"files": 3}',
        '{"files": {"a": 3}}',
        '{"files": {"a": {"bytes": "3", "sha256": "x"}}}',
        '{"files": {"../a": {"bytes": 3, "sha256": "x"}}}',
        '{"files": {"/a": {"bytes": 3, "sha256": "x"}}}',
        '{"files": {"a\\u0000": {"bytes": 3, "sha256": "x"}}}',
    ],
)
def test_a_record_that_is_none(text: str, folder: Path) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=FILE):
        check_files(folder)


def test_the_packaged_model_is_as_it_was_written(runner: CliRunner, tmp_path: Path) -> None:
    done = runner.invoke(cli, ["inspect", str(model_folder()), "--verify"])
    assert done.exit_code == 0 and done.stdout == f"{model_folder()}: 8 files are as they were written\n"
    assert done.stderr == ""
    copy = Path(shutil.copytree(model_folder(), tmp_path / "copy"))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-100] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    done = runner.invoke(cli, ["inspect", str(copy), "--verify"])
    assert done.exit_code == 1 and "model.safetensors: was changed" in done.stderr
    table = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    first, second = list(vocabulary)[500:502]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (copy / "tokenizer.json").write_text(json.dumps(table, indent=2, ensure_ascii=False))
    with pytest.raises(CheckpointError, match=r"tokenizer.json: (was changed|[\d,]+ bytes, 122,171 were written)"):
        gama.load(copy)
