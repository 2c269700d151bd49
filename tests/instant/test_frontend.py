"""An exported front end in front of a language model, on either runtime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from model import small

import gama
from gama import audio
from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError
from gama.inference.engine import Gama
from gama.instant.engine import FRONT_END, LANGUAGE_MODEL
from gama.instant.frontend import open_front_end
from gama_cli.main import cli

EXAMPLE = Path(__file__).parents[2] / "examples" / "dog_then_bells.flac"
QUESTION = "what happened?"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``gama export onnx`` writes it; the packaged graph is one, its weights beside it."""
    folder = tmp_path_factory.mktemp("gama-onnx")
    shutil.copy(model_folder() / FRONT_END, folder / "prefix.onnx")
    shutil.copy(model_folder() / "model.safetensors", folder)
    return folder


@pytest.fixture(scope="module")
def ours() -> Gama:
    return gama.load(runtime="torch")


def test_torch_answers_from_an_exported_front_end(exported: Path, ours: Gama, monkeypatch: pytest.MonkeyPatch) -> None:
    hears = Gama(ours.model, ours.processor, frontend=open_front_end(exported))
    clip = audio.load(EXAMPLE)
    prefix, expected = hears.hear([clip]), ours.hear([clip])
    assert prefix.dtype == torch.float32
    torch.testing.assert_close(prefix, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    answer = ours.ask(EXAMPLE, QUESTION)
    monkeypatch.setattr(ours.model, "audio_prefix", None)  # the model's own tower is not used
    assert hears.ask(EXAMPLE, QUESTION) == answer
    assert hears.batch([EXAMPLE, clip], QUESTION) == [answer, answer]
    assert (hears.runtime.name, hears.runtime.providers) == ("torch", ("CPUExecutionProvider",))


def test_clips_of_a_batch_are_heard_as_if_alone(exported: Path) -> None:
    front_end = open_front_end(exported / "prefix.onnx")
    random = np.random.default_rng(0)
    clips = [(0.1 * random.standard_normal(n)).astype(np.float32) for n in (400, 30_000, 163_840)]
    together = front_end.prefix(clips)
    assert together.shape == (3, *front_end.size)
    for row, clip in zip(together, clips, strict=True):
        np.testing.assert_allclose(row, front_end.prefix([clip])[0], atol=1e-4 * np.abs(row).max())


def test_metadata_can_be_read(exported: Path) -> None:
    assert open_front_end(exported).metadata["gama.sample_rate"] == "16000"


def test_a_front_end_of_another_model(exported: Path) -> None:
    model = small.model()
    with pytest.raises(
        CheckpointError, match=r"prefixes of 96 x \d+, small needs 7 x 48.*gama export onnx --model DIR"
    ):
        Gama(model, None, name="small", frontend=open_front_end(exported))  # type: ignore[arg-type]


def test_what_is_no_front_end(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file .*prefix.onnx \(gama export onnx writes one\)"):
        open_front_end(tmp_path)
    with pytest.raises(CheckpointError, match="goes from input_ids, prefix, past to logits, present; a front end"):
        open_front_end(model_folder() / LANGUAGE_MODEL)


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_on_the_command_line(exported: Path, ours: Gama, runner: CliRunner, runtime: str) -> None:
    words = ["ask", str(EXAMPLE), QUESTION, "--frontend", f"onnx:{exported}", "--runtime", runtime]
    result = runner.invoke(cli, words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{ours.ask(EXAMPLE, QUESTION)}\n"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--frontend", "gama-onnx"], 2, "'gama-onnx' is not onnx: and a folder"),
        (["--frontend", "onnx:nowhere"], 1, "no file nowhere"),
        (["--provider", "toaster"], 1, "no onnxruntime provider is called 'toaster'"),
        (["--provider", "openvino"], 1, "has no OpenVINOExecutionProvider"),
        (["--runtime", "onnx", "--quant", "4bit"], 1, "quant 4bit was asked for"),
    ],
)
def test_refusals(runner: CliRunner, options: list[str], status: int, message: str) -> None:
    result = runner.invoke(cli, ["ask", str(EXAMPLE), QUESTION, *options])
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_samples_that_are_silent_or_short(exported: Path) -> None:
    front_end = open_front_end(exported)
    for clip in (np.zeros(16_000, np.float32), np.zeros(400, np.float32)):
        assert np.isfinite(front_end.prefix([clip])).all()
    windows: Any = audio.windows(Waveform(np.zeros(300_000, np.float32), "zeros", 16_000, 1))
    assert front_end.prefix([w.samples for w in windows]).shape[0] == 2
