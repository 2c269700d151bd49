"""``gama convert``, and ``gama ask`` with what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from checkpoints import small
from click.testing import CliRunner, Result

from gama_cli.main import cli


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return small.write_stage(tmp_path / "pytorch_model.bin")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return small.write_base(tmp_path / "base")


def convert(runner: CliRunner, *words: str | Path) -> Result:
    return runner.invoke(cli, ["convert", *map(str, words)])


def test_convert_and_ask(stage: Path, base: Path, runner: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "gama"
    result = convert(runner, "--audio", stage, "--base", base, "-o", out, "--dtype", "bf16")
    assert result.exit_code == 0, result.stderr
    lines = [line.split(maxsplit=3) for line in result.stdout.splitlines()[1:]]
    assert sum(int(line[1]) for line in lines) == len(small.stage_weights()) + len(small.base_weights())
    assert ["--audio", "96", "dropped", "norm of another modality: multiplied by 0"] in lines
    assert "conversion.json" in result.stderr
    soundfile.write(tmp_path / "clip.wav", np.sin(np.arange(16000) / 9).astype(np.float32) * 0.3, 16000)
    asked = runner.invoke(
        cli,
        ["ask", str(tmp_path / "clip.wav"), "what?", "--model", str(out), "--max-new-tokens", "3", "--json"],
    )
    assert asked.exit_code == 0, asked.stderr
    assert json.loads(asked.stdout)["tokens"]["audio"] == 96


def test_convert_and_ask_ltu(base: Path, runner: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "ltu"
    stage = small.write_stage(tmp_path / "ltu.bin", small.ltu_weights())
    result = convert(runner, "--audio", stage, "--base", base, "-o", out)
    assert result.exit_code == 0, result.stderr
    lines = [line.split(maxsplit=3) for line in result.stdout.splitlines()[1:]]
    assert sum(int(line[1]) for line in lines) == len(small.ltu_weights()) + len(small.base_weights())
    soundfile.write(tmp_path / "clip.wav", np.sin(np.arange(16000) / 9).astype(np.float32) * 0.3, 16000)
    words = ["ask", str(tmp_path / "clip.wav"), "what?", "--model", str(out), "--max-new-tokens", "3", "--json"]
    asked = runner.invoke(cli, words)
    assert asked.exit_code == 0, asked.stderr
    assert json.loads(asked.stdout)["tokens"]["audio"] == 32


def test_json(stage: Path, base: Path, runner: CliRunner, tmp_path: Path) -> None:
    result = convert(runner, "--audio", stage, "--base", base, "-o", tmp_path / "out", "--keep-adapter", "--json")
    report = json.loads(result.stdout)
    assert len(report["fates"]) == len(small.stage_weights()) + len(small.base_weights())
    assert report["adapter"] == "kept"
    assert set(report["outputs"]) == {"model.safetensors", "adapter_model.safetensors"}


def test_stage_1_warns_of_what_was_drawn(base: Path, runner: CliRunner, tmp_path: Path) -> None:
    weights = {k: t for k, t in small.stage_weights().items() if "audio_encoder" in k}
    torch.save({k.split("audio_encoder.")[1]: t for k, t in weights.items() if ".norm_" not in k}, tmp_path / "cav.pth")
    result = convert(runner, "--encoder", tmp_path / "cav.pth", "--base", base, "--stage1", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    first, second = result.stderr.splitlines()
    assert first.startswith("warning: ") and "drawn at random" in first
    assert second.startswith("wrote ")


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "out"],
        ["--base", "{base}", "-o", "out"],
        ["--audio", "{stage}", "-o", "out"],
        ["--clap", "{stage}", "--base", "{base}", "-o", "out"],
        ["--audio", "{stage}", "--base", "{base}"],
        ["--audio", "{stage}", "--base", "{base}", "--dtype", "int3", "-o", "out"],
        ["--audio", "nothing", "--base", "{base}", "-o", "out"],
    ],
)
def test_usage_errors(words: list[str], stage: Path, base: Path, runner: CliRunner, tmp_path: Path) -> None:
    result = convert(runner, *(word.format(stage=stage, base=base) for word in words))
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_refusal_is_one_line(stage: Path, base: Path, runner: CliRunner, tmp_path: Path) -> None:
    (base / "config.json").write_text(json.dumps(small.language_config(num_hidden_layers=1)))
    result = convert(runner, "--audio", stage, "--base", base, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_truncated_checkpoint(stage: Path, base: Path, runner: CliRunner, tmp_path: Path) -> None:
    stage.write_bytes(stage.read_bytes()[:-1000])
    result = convert(runner, "--audio", stage, "--base", base, "-o", tmp_path / "out")
    assert result.exit_code == 1 and "cut short" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "pytorch_model.bin"]
