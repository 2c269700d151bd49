"""``gama plan``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from training import tiny

from gama_cli.main import cli


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny.write_stage(tmp_path / "mine" / "stage1.yaml", starts_from="base", model=tiny.MODEL, max_steps=3)


def test_a_plan_in_lines_and_as_values(runner: CliRunner, stage: Path) -> None:
    done = runner.invoke(cli, ["plan", "mine", "--stage", "1"])
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("stage1: ") and "parameters learn (" in lines[0] and "LoRA" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["memory", "fits", "3", lines[4].split()[0]]
    assert "TFLOP" in lines[4] and "a step was timed" in lines[4]
    done = runner.invoke(cli, ["plan", str(stage), "--gpu", "24GB", "--set", "max_steps=5", "--json"])
    values = json.loads(done.stdout)
    assert (values["steps"], values["memory"]["available"]) == (5, 24 * 2**30)
    assert values["parameters"]["encoder"]["trainable"] == 0
    assert not Path("runs").exists()


def test_what_makes_no_plan(runner: CliRunner, stage: Path) -> None:
    assert "is no size of a memory" in runner.invoke(cli, ["plan", "mine", "--gpu", "big"]).stderr
    assert "did you mean 'max_steps'" in runner.invoke(cli, ["plan", "mine", "--set", "max_step=3"]).stderr
    zero = runner.invoke(cli, ["plan", "mine", "--set", "per_device_train_batch_size=0"])
    assert (zero.exit_code, zero.stdout) == (1, "")
    assert zero.stderr == "error: stage1.yaml: per_device_train_batch_size is 0, expected 1 or more\n"
    assert "no recipe 'minnie'" in runner.invoke(cli, ["plan", "minnie"]).stderr
