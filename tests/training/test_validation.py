"""Held-out rows: no clip on both sides, their loss beside the step's own, and answers that can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training import tiny

from gama.data.dataset import ClipDataset
from gama.errors import RecipeError
from gama.training import trainer
from gama.training.held_out import drawn, split
from gama.training.recipe import load_recipe
from gama.training.validation import Sample, add_to_step

ASKED = {"objective": "answer", "lora": None, "max_steps": 4, "save_steps": 2, "eval_steps": 2}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_parent(tmp_path_factory.mktemp("parent") / "base")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clips(tmp_path_factory.mktemp("clips") / "scenes")


def dataset(clips: Path, features: Path, **more: Any) -> ClipDataset:
    return ClipDataset([clips, clips], features, seed=1, questions=2, augmentation=1.0, **more)


def test_no_clip_stands_on_both_sides(clips: Path, tmp_path: Path) -> None:
    for packing in (True, False):
        whole = dataset(clips, tmp_path, packing=packing)
        training, held_out = split(whole, 0.4)
        sides = [{side.audio(i) for i in range(len(side))} for side in (training, held_out)]
        assert sides[0] and sides[1] and not sides[0] & sides[1]
        assert len(training) + len(held_out) == len(whole)
        again = split(dataset(clips, tmp_path, packing=packing), 0.4)[1]
        assert again.indices == held_out.indices
    with pytest.raises(RecipeError, match=r"data.validation is 1e-09: of 16 items 0 would be kept out"):
        split(dataset(clips, tmp_path), 1e-9)


def test_held_out_items_stay_the_same(clips: Path, tmp_path: Path) -> None:
    training, held_out = split(dataset(clips, tmp_path), 0.4)
    first, learned = held_out[0], training[0]
    for side in (held_out, training):
        side.set_epoch(3)
    assert held_out[0].questions == first.questions
    assert bool((held_out[0].fbank == first.fbank).all())
    assert not bool((training[0].fbank == learned.fbank).all())


def test_a_share_is_about_that_share() -> None:
    assert 400 < sum(drawn(f"{i}.flac", 0.05) for i in range(10_000)) < 600


def run(folder: Path, name: str, clips: Path, parent: Path, shown: list[Sample], **changes: Any) -> Path:
    data = {"questions": 2, "manifests": [str(clips)], "validation": 0.45, "samples": 2}
    recipe = load_recipe(tiny.write_stage(folder / "stage.yaml", **ASKED | {"data": data} | changes))
    both = {"audio_tower": parent, "language_model": parent}
    resume = (folder / name).exists()
    trainer.run(recipe, folder / name, both, folder / "features", resume=resume, show=shown.append)
    return folder / name


@pytest.mark.parametrize("objective", ["answer", "naming"])
def test_a_run_tells_the_loss_of_its_held_out_rows(tmp_path: Path, clips: Path, parent: Path, objective: str) -> None:
    shown: list[Sample] = []
    output = run(tmp_path, "run", clips, parent, shown, objective=objective)
    lines = tiny.metrics(output)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert ["eval_loss" in line for line in lines] == [False, True, False, True]
    assert all(line["eval_loss"] > 0 for line in lines[1::2])
    if objective == "naming":
        assert shown == [] and not (output / "samples.jsonl").exists()
        return
    samples = [json.loads(line) for line in (output / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [2, 2, 4, 4]
    assert [Sample(**sample) for sample in samples] == shown
    assert all(s.question and s.expected and Path(s.audio).is_file() and isinstance(s.answer, str) for s in shown)
    (output / "config.json").unlink()
    (output / "checkpoint-4").rename(tmp_path / "lost")
    with (output / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "que')
    # the last two steps anew from nothing: there is no checkpoint left
    run(tmp_path, "run", clips, parent, shown)
    assert tiny.metrics(output)[1]["eval_loss"] == lines[1]["eval_loss"]
    assert len((output / "samples.jsonl").read_text().splitlines()) == 4


def test_a_manifest_of_its_own(tmp_path: Path, clips: Path, parent: Path) -> None:
    data = {"manifests": [str(clips)], "questions": 2, "validation": str(clips), "samples": 0}
    output = run(tmp_path, "run", clips, parent, [], data=data, max_steps=2)
    assert "eval_loss" in tiny.metrics(output)[1]
    with pytest.raises(RecipeError, match="objective text has no clips"):
        run(tmp_path, "words", clips, parent, [], objective="text", data={"scenes": 4, "validation": 0.1})


def test_only_the_steps_own_line_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "loss": 3}\n')
    add_to_step(path, 2, {"eval_loss": 1.5})
    add_to_step(path, 1, {"eval_loss": 9.0})
    assert tiny.metrics(tmp_path) == [{"step": 1}, {"step": 2, "loss": 3, "eval_loss": 1.5}]
