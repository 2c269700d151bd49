"""``gama export``: what each word asks for; the export itself is tested in tests/export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from gama.errors import CheckpointError
from gama.export import instant, onnx
from gama.export.parity import LIMITS, ClipParity, Report
from gama.inference import engine
from gama_cli.main import cli

REPORT = Report(
    "prefix", "fp32", ("CPUExecutionProvider",), LIMITS["fp32"], (ClipParity("a", 1.0, 1e-6, 1e-6, 1.0, ("x", "x")),)
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What ``export_front_end`` was asked for; nothing is loaded or written."""
    calls: list[dict[str, Any]] = []

    def export(gama: Any, folder: Path, out: Path, plan: Any, clips: Any, *, say: Any) -> Report:
        calls.append({"folder": folder, "out": out, "plan": plan, "clips": clips})
        say("tracing")
        return REPORT

    monkeypatch.setattr(onnx, "export_front_end", export)
    monkeypatch.setattr(engine, "load", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    soundfile.write("long.wav", 0.1 * np.random.default_rng(0).standard_normal(200_000), 16_000)
    return calls


def run(runner: CliRunner, *words: str) -> Result:
    return runner.invoke(cli, ["export", *words])


@pytest.mark.parametrize("words", [[], ["onnx"], ["-o", "gama-onnx"], ["onnx", "-o", "gama-onnx"]])
def test_bare_export_is_export_onnx(runner: CliRunner, asked: list[dict[str, Any]], words: list[str]) -> None:
    result = run(runner, *words)
    assert (result.exit_code, result.stdout) == (0, f"{Path('gama-onnx') / 'prefix.onnx'}\n"), result.stderr
    (call,) = asked
    plan = call["plan"]
    assert call["out"] == Path("gama-onnx") and call["folder"].name == "mini" and len(call["clips"]) == 9
    assert (plan.part, plan.precision, plan.opset, plan.provider, plan.answers) == ("prefix", "fp32", 20, "cpu", True)
    assert "comparing on CPUExecutionProvider" in result.stderr
    assert "0 of 1 answers changed" in result.stderr


@pytest.mark.parametrize("name", [[], ["onnx"]])
def test_options_of_onnx_on_either_word(runner: CliRunner, asked: list[dict[str, Any]], name: list[str]) -> None:
    given = ["-o", "x", "--precision", "int8", "--opset", "19", "--no-answers", "--allow-drift"]
    given += ["--check", "long.wav", "--calibrate", "long.wav"]
    assert run(runner, *name, *given).exit_code == 0
    (call,) = asked
    plan = call["plan"]
    assert (plan.precision, plan.opset, plan.answers, plan.allow_drift) == ("int8", 19, False, True)
    assert [len(clip.samples) for clip in call["clips"]] == [163_840, 36_160]  # in windows
    assert len(plan.calibration) == 2


def test_options_before_another_word(runner: CliRunner, asked: list[dict[str, Any]]) -> None:
    result = run(runner, "-o", "x", "onnx")
    assert result.exit_code == 2 and "options of 'onnx' stand after its name" in result.stderr
    assert not asked


def test_help_names_the_three_and_imports_none(runner: CliRunner) -> None:
    result = run(runner, "--help")
    assert result.exit_code == 0
    for name in ("onnx", "adapter", "merged", "--precision", "--opset"):
        assert name in result.stdout
    assert "instant" not in result.stdout


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--precision", "fp8"], 2, "'fp8' is not one of 'fp32', 'fp16', 'int8'"),
        (["--opset", "11"], 1, "opset 11 was asked for, 18 to 23 can be written"),
        (["--provider", "openvino"], 1, "has no OpenVINOExecutionProvider"),
        (["--model", "maxi"], 1, "no model 'maxi'"),
        (["--check", "nothing.wav"], 1, "nothing.wav"),
    ],
)
def test_refusals(runner: CliRunner, asked: list[dict[str, Any]], words: list[str], status: int, message: str) -> None:
    result = run(runner, *words)
    assert (result.exit_code, result.stdout) == (status, "") and message in result.stderr
    assert not asked


def test_drift_is_an_error(runner: CliRunner, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def drifting(*_: Any, **__: Any) -> Report:
        raise CheckpointError("the int8 graph drifts from torch: cosine 0.9", "see parity.md")

    monkeypatch.setattr(onnx, "export_front_end", drifting)
    result = run(runner, "--precision", "int8")
    assert result.exit_code == 1 and "drifts from torch" in result.stderr


def test_instant_writes_into_the_models_own_folder(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []
    monkeypatch.setattr(instant, "export_instant", lambda folder, **_: folders.append(folder))
    result = run(runner, "instant")
    assert result.exit_code == 0 and [f.name for f in folders] == ["mini"]
    assert result.stdout == f"{folders[0]}\n"
