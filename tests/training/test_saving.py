"""What a stage leaves: whole, or apart from the language model that it did not train."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training import tiny

import gama
from gama.checkpoints.apart import base_of, is_apart, weights_sha256
from gama.checkpoints.file_hashes import FILE as RECORD
from gama.checkpoints.inspection import inspect
from gama.errors import CheckpointError, RecipeError
from gama.export.adapter import export_adapter
from gama.export.merged import export_merged
from gama.inference.loading import load_model
from gama.training import trainer
from gama.training.curriculum import Request, checked, plan, train_stage
from gama.training.recipe import load_recipe

STAGE: dict[str, Any] = {"save": "adapter", "save_steps": 2, "lora": {"r": 2, "alpha": 4, "dropout": 0.0}}


@dataclasses.dataclass(frozen=True)
class Made:
    """Three stages one after the other, and the second once more as a whole model."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name

    def train(self, name: str, parent: Path, **changes: Any) -> Path:
        stage = tiny.write_stage(self.folder / f"{name}.yaml", **{**STAGE, **changes})
        recipe = load_recipe(stage, [f"data.manifests=[{self.folder / 'scenes/manifest.json'}]"])
        parents = {"audio_tower": parent, "language_model": parent}
        trainer.run(recipe, self.folder / name, parents, self.folder / "features")
        return self.folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("apart"))
    base = tiny.write_parent(made.folder / "base")
    tiny.write_clips(made.folder / "scenes", 4)
    one = made.train("one", base, lora=None)
    two = made.train("two", one)
    made.train("whole", one, save="merged")
    made.train("three", two, learning_rate=0.0, lora=STAGE["lora"] | {"dropout": 0.1})
    return made


def logits(folder: Path, **options: Any) -> Tensor:
    model, _ = load_model(folder, quant="none", device="cpu", dtype="float32", **options)
    audio = torch.full((1, model.config.num_audio_tokens), model.config.audio_token_id)
    ids = torch.cat([audio, torch.arange(5, 20).unsqueeze(0)], dim=1)
    with torch.no_grad():
        out: Tensor = model(input_ids=ids, audio_values=torch.linspace(-1, 1, 1024 * 128).view(1, 1024, 128)).logits
    return out


def test_only_what_was_trained_and_the_tower_are_written(made: Made) -> None:
    assert {p.name for p in made.one.glob("*.safetensors")} == {"audio_tower.safetensors"}
    assert {p.name for p in made.two.glob("*.safetensors")} == {"audio_tower.safetensors", "adapter_model.safetensors"}
    tower = load_file(made.two / "audio_tower.safetensors")
    assert tower and not [name for name in tower if name.startswith("language_model")]
    for folder in (made.one, made.two, made.three):
        assert base_of(folder).folder == made.base
        held = load_file(folder / "checkpoint-2/training.safetensors")
        assert not [n for n in held if "language_model" in n and "lora" not in n]
    assert [n for n in load_file(made.two / "checkpoint-2/training.safetensors") if "lora" in n]
    assert not is_apart(made.whole) and not is_apart(made.base)


def test_apart_it_is_the_model_that_it_is_whole(made: Made) -> None:
    torch.testing.assert_close(logits(made.two), logits(made.whole), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(made.two), logits(made.two, adapter=False), atol=1e-4)
    assert not torch.allclose(logits(made.two), logits(made.base), atol=1e-3)
    answer = gama.load(made.two).ask(made.folder / "scenes/audio/000000.flac", "what happened?", max_new_tokens=2)
    assert isinstance(str(answer), str)


def test_the_next_stage_trains_the_same_adapter_on(made: Made) -> None:
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (made.two, made.three))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)  # at a learning rate of 0
    assert json.loads((made.three / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    on = made.train("on", made.two)
    moved = load_file(on / "adapter_model.safetensors")
    assert any(not torch.equal(before[name], moved[name]) for name in before)
    again = made.train("again", made.two, save="merged")  # added to the weights, and a new one drawn
    assert not is_apart(again)
    kept = made.train("kept", made.two, lora=None)
    held = load_file(kept / "adapter_model.safetensors")
    assert all(torch.equal(before[name], held[name]) for name in before)
    with pytest.raises(RecipeError, match="its LoRA has rank 2, alpha 4 in 4 modules; the recipe's has 3, 4 in 4"):
        made.train("other", made.two, lora={"r": 3, "alpha": 4})


def test_lineage_is_carried_and_tells_what_each_stage_was_made_of(made: Made) -> None:
    lineage = json.loads((made.three / "config.json").read_text())["lineage"]
    assert [entry["stage"] for entry in lineage] == ["one", "two", "three"]
    assert lineage[2]["parents"]["language_model"] == weights_sha256(made.two) != weights_sha256(made.one)
    assert len({entry["data_sha256"] for entry in lineage}) == 1
    assert len({entry["recipe_sha256"] for entry in lineage}) == 3
    assert all(len(entry["code_sha256"]) == 64 and entry["gama"] == gama.__version__ for entry in lineage)
    learned = {part: n["trainable"] for part, n in lineage[1]["parameters"].items() if n["trainable"]}
    assert learned.keys() >= {"language_model", "audio_tower.qformer"}
    assert "audio_tower.encoder" not in learned and not lineage[0]["parameters"]["language_model"]["trainable"]
    beside = json.loads((made.three / "checkpoint-2/lineage.json").read_text())
    assert beside == lineage[2]
    assert (made.three / "checkpoint-2/recipe.yaml").read_text() == (made.three / "recipe.yaml").read_text()


def test_a_base_with_other_weights_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.base, tmp_path / "base")
    shutil.copytree(made.two, tmp_path / "two")
    record = json.loads((tmp_path / "two/base.json").read_text())
    (tmp_path / "two/base.json").write_text(json.dumps(record | {"folder": "/nowhere/base"}))
    expected = logits(made.two)
    assert torch.equal(logits(tmp_path / "two"), expected)  # both were moved, as they lie beside each other
    weights = tmp_path / "base/model.safetensors"
    os.utime(weights)
    assert torch.equal(logits(tmp_path / "two"), expected)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for use in (logits, inspect, lambda folder: made.train("refused", folder)):
        with pytest.raises(CheckpointError, match=rf"that of {tmp_path}/.*base, whose weights have changed since"):
            use(tmp_path / "two")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(CheckpointError, match="its language model is that of /nowhere/base, where no weights are"):
        logits(tmp_path / "two")


def test_a_tower_of_another_model_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.two, tmp_path / "two", ignore=shutil.ignore_patterns(RECORD))
    shutil.copy(made.two / "adapter_model.safetensors", tmp_path / "two/audio_tower.safetensors")
    with pytest.raises(CheckpointError, match=r"audio_tower.safetensors: \d+ weight\(s\) are missing or too many"):
        logits(tmp_path / "two")


def test_inspect_says_where_the_language_model_is(made: Made) -> None:
    found = inspect(made.two)
    assert found.kind == "ours" and found.missing == []
    assert found.facts["language_model_of"] == str(made.base)
    assert found.facts["lora_rank"] == 2
    assert set(found.files) == {"audio_tower.safetensors", "adapter_model.safetensors"}


def test_it_can_be_exported(made: Made, tmp_path: Path) -> None:
    assert export_merged(made.two, tmp_path / "merged", device="cpu") is not None
    assert export_adapter(made.two, tmp_path / "adapter", device="cpu") is not None
    with pytest.raises(CheckpointError, match="holds no LoRA"):
        export_adapter(made.one, tmp_path / "none", device="cpu")


def test_a_start_from_nothing_is_written_whole(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.quick_tokenizer(monkeypatch)
    stage = tiny.write_stage(tmp_path / "s.yaml", **STAGE, model=tiny.MODEL, starts_from=None)
    recipe = load_recipe(stage, [f"data.manifests=[{made.folder / 'scenes/manifest.json'}]"])
    trainer.run(recipe, tmp_path / "out", {}, made.folder / "features")
    assert (tmp_path / "out/model.safetensors").is_file() and not is_apart(tmp_path / "out")


def test_recipes_say_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="save is 'apart', expected one of merged, adapter"):
        load_recipe(tiny.write_stage(tmp_path / "s.yaml", save="apart"))
    for part in ("decoder", "language_model"):
        with pytest.raises(RecipeError, match="save is adapter, and trainable names the language model"):
            load_recipe(tiny.write_stage(tmp_path / "s.yaml", save="adapter", trainable=[part]))


def test_the_released_recipes_run_one_after_the_other(made: Made, tmp_path: Path) -> None:
    limits = ("max_steps=1", "per_device_train_batch_size=2", "gradient_accumulation_steps=1", "data.cutoff=60")
    request = Request("gama", "all", (made.folder / "scenes/manifest.json",), tmp_path / "runs", made.base, limits)
    for step in checked(plan(request)):
        train_stage(step, request)
    stages = [tmp_path / f"runs/stage{number}" for number in range(1, 6)]
    lineage = json.loads((stages[-1] / "config.json").read_text())["lineage"]
    assert [entry["stage"] for entry in lineage] == [f"gama/stage{number}" for number in range(1, 6)]
    for folder, entry in zip([made.base, *stages], lineage, strict=False):
        assert set(entry["parents"].values()) == {weights_sha256(folder)}
    assert {base_of(folder).folder for folder in stages} == {made.base}
    assert [(folder / "adapter_config.json").is_file() for folder in stages] == [False, True, True, True, True]
    assert plan(dataclasses.replace(request, resume=True)) == []
    assert logits(stages[-1]).isfinite().all()
