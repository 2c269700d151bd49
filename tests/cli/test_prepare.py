"""``gama prepare``: the options reach the functions that write; what is said goes to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gama_cli.main import cli


def scenes(runner: CliRunner, *words: str) -> tuple[int, str, str]:
    result = runner.invoke(cli, ["prepare", "scenes", *words])
    return result.exit_code, result.stdout, result.stderr


def test_scenes_are_written(runner: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    status, stdout, stderr = scenes(runner, "--count", "2", "--seed", "3", "--questions", "2", "--out", str(out))
    assert (status, stdout) == (0, "")
    assert stderr == f"wrote {out / 'manifest.json'}\n"
    rows = json.loads((out / "manifest.json").read_text())
    assert len(rows) == 4
    assert {row["audio_id"] for row in rows} == {f"audio/{path.name}" for path in (out / "audio").iterdir()}
    assert len(list(out.rglob("*.json*"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--seed", "1"], "missing option '--count'", id="no count"),
        pytest.param(["--count", "0"], "invalid value for '--count'", id="count of none"),
        pytest.param(["--count", "1", "--real-share", "nan"], "nan is not a finite number", id="share nan"),
        pytest.param(["--count", "1", "--folds", "1"], "give them with --real", id="folds of nothing"),
        pytest.param(["--count", "1", "--folds", "1,x"], "'1,x' is not a list of fold numbers", id="fold x"),
    ],
)
def test_wrong_options(runner: CliRunner, tmp_path: Path, words: list[str], message: str) -> None:
    status, stdout, stderr = scenes(runner, *words, "--out", str(tmp_path / "scenes"))
    assert (status, stdout) == (2, "")
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "scenes").exists()


def test_real_without_recordings_is_one_line(runner: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "real"
    result = runner.invoke(cli, ["prepare", "real", "--audio-root", str(tmp_path), "--out", str(out)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_the_group_shows_its_commands_and_loads_nothing_heavy(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["prepare", "--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    for name in ("scenes", "real", "questions", "source", "combine", "check", "audio", "features"):
        assert name in listed
    script = (
        "import sys\nfrom gama_cli.main import cli\n"
        "try:\n    cli(['prepare', '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'numpy', 'torch', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["scenes", "real", "questions", "source", "combine", "check", "audio", "features"])
def test_every_command_has_help(runner: CliRunner, name: str) -> None:
    result = runner.invoke(cli, ["prepare", name, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


def test_an_unknown_command_is_one_line(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["prepare", "fsd5"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no command or data set 'fsd5'; did you mean 'fsd50k'? (see ")
