"""Plans: parameters as they are, memory and products counted without allocating, steps as the Trainer counts them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from training import tiny

from gama.checkpoints.bundled import model_folder
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.training import calibration, footprint, planning, stages
from gama.training.calibration import Speed
from gama.training.curriculum import Request, steps_of
from gama.training.footprint import Shape, packed_bytes
from gama.training.plan_subjects import subject_of
from gama.training.plan_text import plan_lines, plan_values
from gama.training.planning import Plan, Subject, make_plan
from gama.training.recipe import Data, Lora, Recipe, load_recipe
from gama.training.row_lengths import row_lengths

CONFIG = GamaConfig(**tiny.MODEL, audio_token_id=3)
TOWER = ("encoder", "aggregator", "qformer", "projectors")
RECIPE = Recipe("stage", "answer", trainable=TOWER, lora=Lora(r=2), save="adapter")


def with_training(recipe: Recipe, **training: Any) -> Recipe:
    return dataclasses.replace(recipe, training=training)


def test_parameters_are_counted_as_they_are() -> None:
    gama = GamaForConditionalGeneration(CONFIG)
    assert RECIPE.lora is not None
    stages.add_lora(gama, RECIPE.lora)
    stages.set_trainable(gama, RECIPE.trainable)
    parts = {part.name: part for part in footprint.parts(footprint.skeleton(CONFIG, RECIPE))}
    assert sum(p.trainable for p in parts.values()) == sum(p.numel() for p in gama.parameters() if p.requires_grad)
    assert sum(p.trainable + p.frozen for p in parts.values()) == sum(p.numel() for p in gama.parameters())
    assert sum(p.weights for p in parts.values()) == 4 * sum(p.numel() for p in gama.parameters())
    assert parts["LoRA"].frozen == parts["language model"].trainable == parts["encoder"].frozen == 0


def test_the_released_model_and_its_script() -> None:
    """253,203,456 parameters learn in the original (finetune.py), 14.25 M of which have no influence; LoRA 4.19 M."""
    stage = load_recipe(Path(__file__).parents[2] / "recipes" / "stage2.yaml")
    parts = {part.name: part for part in footprint.parts(footprint.skeleton(GamaConfig(), stage), "4bit")}
    assert parts["LoRA"].trainable == 4_194_304
    learning = sum(part.trainable for part in parts.values()) - parts["LoRA"].trainable
    assert learning == pytest.approx(253_203_456 - 14_250_000, rel=0.005)
    language = parts["language model"]
    assert language.frozen == 6_738_415_616
    assert 3.5 * 2**30 < language.weights < 4.5 * 2**30  # NF4, embeddings and head in float32


@pytest.mark.parametrize(("quant", "bits"), [("4bit", 4.127), ("8bit", 8.0)])
def test_packed_weights(quant: str, bits: float) -> None:
    assert packed_bytes(torch.Size((4096, 4096)), quant) * 8 / 4096**2 == pytest.approx(bits, rel=0.002)


def test_nothing_is_allocated_and_all_is_counted() -> None:
    small, large = Shape(1, 160, 40), Shape(2, 160, 40)
    one, two = (footprint.measure(CONFIG, RECIPE, shape, plain_attention=False) for shape in (small, large))
    assert two.flops == 2 * one.flops
    assert 1.5 * one.peak < two.peak < 2.1 * one.peak
    linear = 2 * 160 * 3 * (4 * 32 * 32 + 3 * 32 * 48)  # of the language model, forward and to its inputs
    assert one.flops > linear
    checkpointed = with_training(RECIPE, gradient_checkpointing=True)
    saved = footprint.measure(CONFIG, checkpointed, small, plain_attention=False)
    assert saved.peak < one.peak and saved.flops > one.flops
    kept = dataclasses.replace(RECIPE, trainable=("projectors",), data=Data(keep_frozen=True))
    read = footprint.measure(CONFIG, kept, small, plain_attention=False)
    assert (
        read.flops
        < footprint.measure(CONFIG, dataclasses.replace(kept, data=Data()), small, plain_attention=False).flops
    )
    packed = dataclasses.replace(RECIPE, quant="4bit")
    assert footprint.measure(CONFIG, packed, small, plain_attention=False).flops == one.flops


def test_gradients_that_come_while_activations_go() -> None:
    """In the first micro-batch of a step both are never whole at once."""
    recipe = dataclasses.replace(RECIPE, objective="text", trainable=("language_model",), lora=None)
    before, coming = (
        footprint.measure(CONFIG, recipe, Shape(1, 8, 8), plain_attention=False, accumulates=accumulates)
        for accumulates in (True, False)
    )
    gradients = 4 * sum(part.trainable for part in footprint.parts(footprint.skeleton(CONFIG, recipe)))
    assert before.peak < coming.peak < before.peak + gradients
    assert before.flops == coming.flops


def test_weights_that_stay_in_their_file() -> None:
    """Float32 that nothing changes is mapped; what learns, or is rounded, is held."""
    recipe = dataclasses.replace(with_training(RECIPE, bf16=True), trainable=("aggregator", "projectors"), lora=None)
    gama = footprint.skeleton(CONFIG, recipe)
    held = {part.name: part for part in footprint.parts(gama)}
    read = {part.name: part for part in footprint.parts(gama, mapped={"audio_tower", "language_model"})}
    assert read["encoder"].mapped == held["encoder"].weights == 4 * held["encoder"].frozen
    assert read["encoder"].weights == read["projectors"].mapped == 0
    assert read["projectors"].weights == held["projectors"].weights
    language = read["language model"]
    halved = sum(2 * p.numel() for p in gama.language_model.parameters() if p.dtype == torch.bfloat16)
    assert halved > 0 and (language.weights, language.mapped) == (halved, held["language model"].weights - halved)


@pytest.mark.parametrize(("objective", "more"), [("tagging", {}), ("naming", {"hearing": 1.0}), ("text", {})])
def test_every_objective_can_be_planned(objective: str, more: dict[str, float]) -> None:
    trainable = ("language_model",) if objective == "text" else ("encoder",)
    recipe = dataclasses.replace(RECIPE, objective=objective, trainable=trainable, lora=None, save="merged")
    recipe = dataclasses.replace(recipe, loss=dataclasses.replace(recipe.loss, **more))
    step = footprint.measure(CONFIG, recipe, Shape(2, 112, 8), plain_attention=True)
    assert step.flops > 0 and step.peak > 0


def test_the_count_of_live_bytes_is_that_of_torch() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(1000, requires_grad=True)
        with footprint.LivePeak(iter([x])) as live:
            y = (x * 2).sin()  # the product stays for the backward pass
            z = y.detach() + 1
            del z
    assert (live.peak, live.live) == (12_000, 8_000)


@pytest.mark.parametrize(
    ("training", "rows", "steps"),
    [
        ({"max_steps": 7}, None, 7),
        ({"num_train_epochs": 2}, None, None),
        ({"num_train_epochs": 2}, 1000, 8),  # 250 batches of 4, of which 64 make a step: 4 an epoch
        ({"num_train_epochs": 1}, 5, 1),
    ],
)
def test_steps(training: dict[str, Any], rows: int | None, steps: int | None) -> None:
    assert planning._steps(with_training(RECIPE, **training), rows, 4, 64) == steps


def quick(monkeypatch: pytest.MonkeyPatch, seconds: float = 2.0) -> None:
    speed = Speed(seconds, 0.0, 0.0, True, 1e9, "cpu")
    monkeypatch.setattr(calibration, "calibrate", lambda *args: speed)


def planned(monkeypatch: pytest.MonkeyPatch, gpu: int | None = None, **training: Any) -> Plan:
    quick(monkeypatch)
    recipe = with_training(RECIPE, **{"max_steps": 900, "per_device_train_batch_size": 4, **training})
    return make_plan(Subject(recipe, CONFIG), gpu=gpu)


def test_hours_batch_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, gradient_accumulation_steps=2)
    assert plan.hours == pytest.approx(900 * 2 * 2.0 / 3600)
    memory = plan.memory
    learning = sum(part.trainable for part in plan.parts)
    assert (memory.gradients, memory.optimizer) == (4 * learning, 8 * learning)
    assert planned(monkeypatch, optim="sgd").memory.optimizer == 0
    assert plan.largest >= 4 and not plan.tokens_counted
    values = plan_values(plan)
    assert values["memory"]["total"] == memory.total
    assert len(plan_lines(plan)) == 5


def test_a_memory_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = planned(monkeypatch, 10 * 2**30)
    held = roomy.memory.total - roomy.memory.activations
    each = roomy.memory.activations / 4
    tight = planned(monkeypatch, int((held + 2.5 * each) / 0.92), gradient_accumulation_steps=2)
    assert (tight.largest, tight.kept_accumulation) == (2, 4)
    assert "--set per_device_train_batch_size=2 --set gradient_accumulation_steps=4" in plan_lines(tight)[2]
    none = planned(monkeypatch, held)
    assert none.largest == 0 and "not even a micro-batch of 1" in plan_lines(none)[2]


def test_rows_are_counted_and_their_lengths_sampled(tmp_path: Path) -> None:
    from gama.data.collator import AnswerCollator
    from gama.data.dataset import ClipDataset
    from gama.model.processing import GamaProcessor

    processor = GamaProcessor.from_pretrained(model_folder("mini"))
    manifest = tiny.write_clips(tmp_path / "scenes", 6)
    for packing in (True, False):
        data = {"manifests": [str(manifest)], "packing": packing, "questions": 2 if packing else 1}
        recipe = load_recipe(tiny.write_stage(tmp_path / "stage.yaml", data=data))
        found = row_lengths(recipe, processor, 96)
        clips = ClipDataset([manifest], tmp_path / "features", seed=5, packing=packing, questions=data["questions"])
        batch = AnswerCollator(processor)([clips[i] for i in range(len(clips))])
        answers = (batch["labels"] >= 0).sum(1).float().mean()
        assert found.mean_targets == pytest.approx(float(answers), rel=0.3)
        assert found.rows == len(clips) and found.sampled
        assert found.padded(64)[1] == pytest.approx(batch["input_ids"].shape[1], abs=24)
    missing = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, manifests=("soon.json",)))
    assert row_lengths(missing, processor, 96).rows is None
    assert row_lengths(missing, processor, 96, {"soon.json": 50}).rows == 50
    assert row_lengths(missing, None, 96, {"soon.json": 50}).widths == (96 + 108,)


def test_a_stage_whose_parents_are_not_there_is_planned_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (step,) = steps_of(Request("gama", "3"))
    subject = subject_of(step)
    assert subject.config.text_config.num_hidden_layers == 32 and subject.processor is None
    (step,) = steps_of(Request("mini", "4"))
    subject = subject_of(step)
    assert subject.config.text_config.hidden_size == 192 and subject.processor is not None
    assert subject.promised == {"data/scenes/manifest.json": 5000}
    (step,) = steps_of(Request("small", "language"))
    assert subject_of(step).processor is None


def test_what_a_parents_file_holds_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_parent(tmp_path / "base")
    (step,) = steps_of(Request("gama", "1", parent=Path("base")))
    subject = subject_of(step)
    assert subject.mapped == {"language_model", "audio_tower"}
    quick(monkeypatch)
    plan = make_plan(subject)
    assert plan.memory.mapped > 0 and "mapped" in plan_lines(plan)[1]
    assert make_plan(dataclasses.replace(subject, mapped=frozenset())).memory.total > plan.memory.total
    assert make_plan(subject, gpu=2**34).memory.mapped == 0
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))
    assert subject_of(step).mapped == frozenset()


def test_a_step_is_timed(tmp_path: Path) -> None:
    speed = calibration.calibrate(CONFIG, RECIPE, [Shape(1, 112, 8), Shape(1, 128, 8)], 10**8, 10**6, 10**5)
    assert speed.tried and speed.micro_batch > 0 and speed.rate > 1e8 and 0 <= speed.grown < 2**30
    guessed = calibration.calibrate(CONFIG, RECIPE, [Shape(1, 112, 8), Shape(1, 128, 8)], 10**8, 10**12, 10**5)
    assert not guessed.tried
    assert guessed.micro_batch == pytest.approx(10**8 / guessed.rate / calibration.SHARE_OF_RATE[torch.float32])
    assert 0 < guessed.optimizer < 1.0
