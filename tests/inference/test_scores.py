"""Scores that choose nothing are an error that names the weight, the model or the clip; never an empty answer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gama
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.file_hashes import FILE
from gama.errors import AudioError, CheckpointError
from gama.inference.decoding import check_scores
from gama.model.gama import GamaForConditionalGeneration

KEY = "language_model.model.layers.1.mlp.up_proj.weight"


def changed(tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    folder = Path(shutil.copytree(model_folder(), tmp_path / "model", ignore=shutil.ignore_patterns(FILE)))
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_weight_that_is_no_number(runtime: Any, value: float, tmp_path: Path) -> None:
    folder = changed(tmp_path, lambda weights: weights[KEY].view(-1)[7].fill_(value))
    with pytest.raises(CheckpointError, match=rf"{KEY} holds NaN or infinity"):
        gama.load(folder, runtime=runtime).ask(None, "what happened?")


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_weights_of_zeros(runtime: Any, tmp_path: Path) -> None:
    folder = changed(tmp_path, lambda weights: [tensor.zero_() for tensor in weights.values()])
    with pytest.raises(CheckpointError, match="every token is as likely as any other: its weights are empty"):
        gama.load(folder, runtime=runtime).ask(None, "what happened?")


@pytest.fixture(scope="module")
def model() -> GamaForConditionalGeneration:
    return gama.load(runtime="torch").model


def test_scores_that_are_sound_pass(model: GamaForConditionalGeneration) -> None:
    check_scores(model, torch.tensor([[0.0, 1.0], [-float("inf"), 3.0]]), None)


def test_a_clip_is_told_from_the_weights(model: GamaForConditionalGeneration) -> None:
    scores = torch.tensor([[0.0, 1.0], [float("nan"), 1.0]])
    with pytest.raises(AudioError, match="what the audio encoder makes of a clip is not finite"):
        check_scores(model, scores, torch.full((1, 96, 192), float("nan")))
    with pytest.raises(CheckpointError, match="the scores of an answer are not numbers"):
        check_scores(model, scores, torch.zeros(1, 96, 192))
