"""A run whose recipe keeps the outputs of frozen parts learns what a run that computes them learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training import tiny

from gama.training import kept, trainer
from gama.training.recipe import load_recipe


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_parent(tmp_path_factory.mktemp("parent") / "base")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clips(tmp_path_factory.mktemp("clips") / "scenes")


def run(folder: Path, parent: Path, clips: Path, **changes: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    stage = {"trainable": ["aggregator", "projectors"], "max_steps": 3, "save": "adapter"} | changes
    loaded = load_recipe(tiny.write_stage(folder / "stage.yaml", **stage))
    made = dataclasses.replace(loaded, data=dataclasses.replace(loaded.data, manifests=(str(clips),)))
    both = {"audio_tower": parent, "language_model": parent}
    trainer.run(made, folder / "out", both, folder.parent / "features")
    files = sorted((folder / "out").glob("*.safetensors"))
    weights = {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}
    return [line["loss"] for line in tiny.metrics(folder / "out")], weights


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_a_run_learns_the_same(tmp_path: Path, parent: Path, clips: Path, bf16: bool) -> None:
    data = {"questions": 2, "augmentation": 0.0}
    plain = run(tmp_path / "plain", parent, clips, data=data, bf16=bf16)
    assert not (tmp_path / "features" / kept.FOLDER).exists()
    quick = run(tmp_path / "quick", parent, clips, data=data | {"keep_frozen": True}, bf16=bf16)
    assert list((tmp_path / "features" / kept.FOLDER).glob("*/kept-*.safetensors"))
    assert quick[0] == pytest.approx(plain[0], rel=2e-2 if bf16 else 1e-5)
    assert quick[1].keys() == plain[1].keys()
    assert {tensor.dtype for tensor in quick[1].values()} == {tensor.dtype for tensor in plain[1].values()}
    if not bf16:  # steps of AdamW turn rounding into the size of a step where a gradient is nothing
        assert max(float((quick[1][k].float() - plain[1][k].float()).abs().max()) for k in plain[1]) < 4e-2
