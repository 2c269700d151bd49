"""``gama models``: list, and remove after asking."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
from click.testing import CliRunner

from gama_cli.main import cli


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model in gama's folder, and one that was cut short."""
    monkeypatch.setenv("GAMA_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    for name in ("mine", "other.part"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.bin").write_bytes(b"w" * 1500)
    return tmp_path / "models"


def test_list(runner: CliRunner, folder: Path) -> None:
    lines = runner.invoke(cli, ["models", "list"]).stdout.splitlines()
    assert lines[0].split() == ["NAME", "WHERE", "SIZE", "PATH"]
    assert lines[1].split()[:2] == ["mini", "package"]
    assert lines[2].split() == ["mine", "gama", "1.5", "kB", str(folder / "mine")]
    assert "cut short" in lines[3]


def test_list_as_json(runner: CliRunner, folder: Path) -> None:
    rows = [json.loads(line) for line in runner.invoke(cli, ["models", "list", "--json"]).stdout.splitlines()]
    assert rows[1] == {"name": "mine", "where": "gama", "size": 1500, "whole": True, "path": str(folder / "mine")}
    assert [row["whole"] for row in rows] == [True, True, False]


def test_known(runner: CliRunner) -> None:
    text = runner.invoke(cli, ["models", "list", "--known"]).stdout
    assert "llama-2-7b-chat " in text and "LLaMA 2 Community License" in text
    rows = [
        json.loads(line) for line in runner.invoke(cli, ["models", "list", "--known", "--json"]).stdout.splitlines()
    ]
    assert {row["name"]: row["gated"] for row in rows}["llama-2-7b-chat"] is True


def test_rm_asks(runner: CliRunner, folder: Path) -> None:
    result = runner.invoke(cli, ["models", "rm", "mine"], input="n\n")
    assert result.exit_code == 0 and result.stdout == ""
    assert "remove 1.5 kB? [y/N]" in result.stderr and "nothing was removed" in result.stderr
    assert (folder / "mine").is_dir()
    result = runner.invoke(cli, ["models", "rm", "mine"], input="y\n")
    assert "removed 1.5 kB" in result.stderr
    assert not (folder / "mine").exists()


def test_rm_yes_takes_several_and_what_was_cut_short(runner: CliRunner, folder: Path) -> None:
    result = runner.invoke(cli, ["models", "rm", "mine", "other", "--yes", "--json"])
    assert [json.loads(line)["removed"] for line in result.stdout.splitlines()] == ["mine", "other"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["absent", "mini", "..", "../models", ""])
def test_rm_of_nothing(runner: CliRunner, folder: Path, name: str) -> None:
    result = runner.invoke(cli, ["models", "rm", "mine", name, "--yes"])
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert (folder / "mine").is_dir()
