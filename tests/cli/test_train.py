"""``gama train`` as a user runs it: in its own process, on its two streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from training import tiny

from gama_cli import train
from gama_cli.main import cli

Gama = Callable[..., "subprocess.CompletedProcess[str]"]

# whether torch was imported is told after the command's own lines
COMMAND = """
import sys
from gama_cli.main import main
try:
    main()
finally:
    print('TORCH' if 'torch' in sys.modules else 'LIGHT', file=sys.stderr)
"""


@pytest.fixture
def gama(tmp_path: Path) -> Gama:
    """Runs ``gama`` in an empty working directory; the last line of stderr says TORCH or LIGHT."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        command = [sys.executable, "-c", COMMAND, *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("words", [("--stage", "2"), ("--recipe", "mini", "--stage", "2")])
def test_a_fresh_machine_is_taught_before_torch_is_imported(gama: Gama, tmp_path: Path, words: tuple[str, ...]) -> None:
    done = gama("train", *words)
    error, imported = done.stderr.splitlines()
    assert (done.returncode, done.stdout, imported) == (1, "", "LIGHT")
    assert error.startswith("error: ")
    assert error.endswith("(what works now: gama train --recipe mini --stage 1)")
    assert list(tmp_path.iterdir()) == []


def test_a_stage_from_start_to_end(gama: Gama, tmp_path: Path) -> None:
    parent = tiny.write_parent(tmp_path / "base")
    manifest = tiny.write_clips(tmp_path / "scenes", 2)
    stage = tiny.write_stage(tmp_path / "mine/stage1.yaml", max_steps=3)
    words = ("train", "--recipe", str(stage), "--stage", "1", "--from", str(parent), "--data", str(manifest))
    done = gama(*words, "--set", "max_steps=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"mine/stage1: {stage.name} -> runs/mine/stage1"
    assert "parameters learn (aggregator" in lines[1] and lines[2].startswith("memory ")
    assert lines[4].startswith("2 steps of 2 rows (2 rows an epoch)")
    assert lines[6].startswith("mine/stage1: step 2 of 2, loss ")
    assert lines[7:] == ["mine/stage1: done", "TORCH"]
    output = tmp_path / "runs/mine/stage1"
    held = {"checkpoint-2", "metrics.jsonl", "recipe.yaml", "config.json", "model.safetensors", "tokenizer.json"}
    assert held <= {path.name for path in output.iterdir()}
    assert [line["step"] for line in tiny.metrics(output)] == [1, 2]

    stage = tiny.write_stage(tmp_path / "mine/stage2.yaml", otherwise="mini", max_steps=1, starts_from="far", lora=None)
    done = gama("train", "--recipe", str(stage), "--stage", "2", "--data", str(manifest))
    assert "mine/stage2: not all parents have been trained: starting from the packaged mini" in done.stderr, done.stderr
    assert (tmp_path / "runs/mine/stage2/model.safetensors").is_file()

    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    again = gama(*words)
    assert again.returncode == 1
    assert "runs/mine/stage1 already holds a run (continue it with --resume" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_step=3", "unknown key 'max_step'; did you mean 'max_steps'?"),
        ("data.scenes=0", "data.scenes is 0, expected 1 or more for objective text"),
        ("name", "--set 'name' is not key=value"),
        ("per_device_train_batch_size=0", "per_device_train_batch_size is 0, expected 1 or more"),
        ("max_steps=0", "max_steps is 0, expected 1 or more, or -1 for num_train_epochs"),
    ],
)
def test_wrong_settings(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(cli, ["train", "--recipe", "mini", "--stage", "language", "--set", override])
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_bar_of_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with train._watched("mini/[stage1]") as watch:
        watch(1, 2, {})
        watch(2, 2, {"loss": 1.5})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "mini/[stage1], loss 1.500" in shown.err


def test_unknown_stages_and_recipes(runner: CliRunner) -> None:
    assert "has no stage '9' (it has:" in runner.invoke(cli, ["train", "--recipe", "mini", "--stage", "9"]).stderr
    assert "did you mean 'mini'" in runner.invoke(cli, ["train", "--recipe", "minni", "--stage", "1"]).stderr
    assert runner.invoke(cli, ["train"]).exit_code == 2
