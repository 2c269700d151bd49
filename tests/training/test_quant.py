"""A frozen language model in few bits, rows of like length, layers computed twice: what moves and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import tiny

from gama.data.dataset import EpochDataset, Item
from gama.errors import RecipeError
from gama.training import stages, trainer
from gama.training.grouping import LengthGrouped
from gama.training.objectives import Answering
from gama.training.recipe import load_recipe

EVERYTHING = ["encoder", "aggregator", "qformer", "projectors"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_parent(tmp_path_factory.mktemp("parent") / "base")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clips(tmp_path_factory.mktemp("clips") / "scenes", 4)


def both(folder: Path) -> dict[str, Path]:
    return {"audio_tower": folder, "language_model": folder}


def run(folder: Path, name: str, manifest: Path, parent: Path, *, resume: bool = False, **changes: Any) -> Path:
    data = {"questions": 2, "manifests": [str(manifest)]} | changes.pop("data", {})
    recipe = load_recipe(tiny.write_stage(folder / f"{name}.yaml", data=data, **changes))
    trainer.run(recipe, folder / name, both(parent), folder / "features", resume=resume)
    return folder / name


@pytest.mark.parametrize("quant", ["4bit", "8bit"])
def test_only_adapters_and_tower_learn(
    quant: str, tmp_path: Path, parent: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    seen: list[Any] = []
    model = trainer._model

    def kept(*args: Any) -> Any:
        made = model(*args)
        seen.append((made[0], {name: p.detach().clone() for name, p in made[0].named_parameters()}))
        return made

    monkeypatch.setattr(trainer, "_model", kept)
    changes = {"quant": quant, "save": "adapter", "trainable": EVERYTHING, "max_steps": 12, "learning_rate": 3e-3}
    output = run(tmp_path, "run", clips, parent, **changes, gradient_checkpointing=True)
    (gama, before) = seen[0]
    layer = gama.language_model.model.layers[0].mlp.up_proj.weight
    assert layer.dtype == (torch.uint8 if quant == "4bit" else torch.int8)
    moved = {name for name, p in gama.named_parameters() if not torch.equal(p, before[name])}
    assert any("lora_B" in name for name in moved) and any("encoder" in name for name in moved)
    assert not [name for name in moved if name.startswith("language_model") and ".lora_" not in name]
    losses = [line["loss"] for line in tiny.metrics(output)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    held = {path.name for path in output.iterdir()}
    assert {"adapter_model.safetensors", "audio_tower.safetensors", "base.json"} <= held
    assert "model.safetensors" not in held


def test_a_stage_goes_on_with_the_adapters_of_the_one_before(tmp_path: Path, parent: Path, clips: Path) -> None:
    pytest.importorskip("bitsandbytes")
    changes = {"quant": "4bit", "save": "adapter", "bf16": True}
    first = run(tmp_path, "first", clips, parent, **changes)
    run(tmp_path, "second", clips, first, **changes)
    lineage = json.loads((tmp_path / "second" / "config.json").read_text())["lineage"]
    assert [entry["stage"] for entry in lineage] == ["first", "second"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quant": "3bit"}, "quant is '3bit', expected one of none, 8bit, 4bit"),
        ({"quant": "4bit"}, r"quant is 4bit and save is merged \(LoRA cannot be added"),
        ({"quant": "4bit", "trainable": ["language_model"], "lora": None}, "trainable names the language model"),
    ],
)
def test_what_cannot_be_quantized(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny.write_stage(tmp_path / "stage.yaml", **changes))


@pytest.mark.parametrize("objective", ["answer", "naming"])
def test_layers_computed_twice_give_the_same(tmp_path: Path, parent: Path, clips: Path, objective: str) -> None:
    changes = {"objective": objective, "trainable": ["projectors"], "lora": None, "max_steps": 3}
    plain = run(tmp_path, f"plain-{objective}", clips, parent, **changes)
    again = run(tmp_path, f"again-{objective}", clips, parent, **changes, gradient_checkpointing=True)
    assert [m["loss"] for m in tiny.metrics(again)] == [m["loss"] for m in tiny.metrics(plain)]


def test_checkpointing_reaches_the_language_model(parent: Path) -> None:
    recipe = load_recipe(tiny.write_stage(parent.parent / "stage.yaml"))
    gama, _ = stages.start(recipe, both(parent))
    objective = Answering(gama, 0.0, torch.tensor([]))
    objective.activation_checkpointing_enable({})
    assert gama.language_model.model.layers[0].gradient_checkpointing


class Rows(EpochDataset):
    """Nothing but an epoch."""

    def __getitem__(self, index: int) -> Item:
        raise AssertionError


def padding(order: list[int], lengths: np.ndarray, batch: int) -> int:
    batches = [lengths[order[at : at + batch]] for at in range(0, len(order), batch)]
    return int(sum(len(b) * b.max() - b.sum() for b in batches))


def test_rows_of_like_length_stand_together() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 1003)
    rows = Rows(1)
    sampler = LengthGrouped(rows, lengths, batch=8, seed=5)
    first = list(sampler)
    assert sorted(first) == list(range(1003)) and len(sampler) == 1003
    plain = padding(list(np.random.default_rng(1).permutation(1003)), lengths, 8)
    assert padding(first, lengths, 8) < 0.1 * plain
    assert lengths[first[0]] == lengths.max()
    assert list(LengthGrouped(rows, lengths, batch=8, seed=5)) == first
    rows.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthGrouped(rows, lengths[:3], batch=8, seed=5))


def test_a_grouped_run_resumes_exactly(tmp_path: Path, parent: Path, clips: Path) -> None:
    audio = sorted(str(path) for path in (clips.parent / "audio").iterdir())
    asked = ["What? " * (1 + i % 5) for i in range(12)]
    rows = [{"audio_id": audio[i % 4], "instruction": q, "output": f"Sound {i}."} for i, q in enumerate(asked)]
    manifest = tiny.write_rows(tmp_path / "rows.json", rows)
    changes: dict[str, Any] = {
        "train_sampling_strategy": "group_by_length",
        "data": {"packing": False, "questions": 1},
        "max_steps": 8,
        "save_steps": 4,
        "save_total_limit": 5,
    }
    output = run(tmp_path, "run", manifest, parent, **changes)
    lines = tiny.metrics(output)
    (output / "checkpoint-8").rename(tmp_path / "lost")
    (output / "config.json").unlink()
    run(tmp_path, "run", manifest, parent, resume=True, **changes)
    again = tiny.metrics(output)
    assert [m["step"] for m in again] == list(range(1, 9))
    assert [m["loss"] for m in again] == [m["loss"] for m in lines]
