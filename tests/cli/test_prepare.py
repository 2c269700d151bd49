"""``gama prepare``: the options reach the functions that write; what is said goes to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
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


@pytest.fixture
def malformed(tmp_path: Path) -> Path:
    """A manifest whose second and third row are malformed."""
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, rng.normal(0, 0.1, 8000), 16000)
    rows: list[object] = [
        {"audio_id": "a.wav", "instruction": "q", "output": "a"},
        {"audio_id": "a.wav", "instruction": "q", "output": "\ud83d"},
        7,
        {"audio_id": "b.wav", "instruction": "q", "output": "b"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return tmp_path / "rows.json"


def left_out(stderr: str, manifest: Path) -> None:
    assert f"warning: {manifest}: row 2: 'output' holds half of a surrogate pair" in stderr
    assert f"warning: {manifest}: row 3 is int, expected an object" in stderr
    assert "warning: 2 malformed row(s) were left out; gama prepare check lists them" in stderr


def test_features_of_the_other_rows(runner: CliRunner, malformed: Path, tmp_path: Path) -> None:
    words = ["prepare", "features", str(malformed), "--out", str(tmp_path / "features"), "--workers", "1"]
    done = runner.invoke(cli, words)
    assert done.exit_code == 1
    left_out(done.stderr, malformed)
    assert f"2 of 2 clips in {tmp_path / 'features'}, 2 computed now" in done.stderr


def test_the_other_rows_are_mixed(runner: CliRunner, malformed: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed.json"
    done = runner.invoke(cli, ["prepare", "combine", str(malformed), "--out", str(out)])
    assert done.exit_code == 1
    left_out(done.stderr, malformed)
    assert sorted(row["output"] for row in json.loads(out.read_text())) == ["a", "b"]
