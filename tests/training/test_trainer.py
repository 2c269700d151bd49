"""One stage: what it writes, what it leaves alone, and that a stopped run goes on as if it had not been stopped."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from training import tiny

import gama
from gama.data.dataset import ClipDataset
from gama.errors import (
    AudioError,
    CheckpointError,
    GamaError,
    LockedError,
    ManifestError,
    MissingPackageError,
    RecipeError,
)
from gama.locks import locked
from gama.training import integrations, loop, stages, trainer
from gama.training.lineage import recipe_text, require_same_recipe
from gama.training.recipe import Lora, Recipe, load_recipe
from gama.training.recipe_paths import recipes_root


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_parent(tmp_path_factory.mktemp("parent") / "base")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clips(tmp_path_factory.mktemp("clips") / "scenes")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def recipe(folder: Path, manifest: Path | None, **changes: Any) -> Recipe:
    loaded = load_recipe(tiny.write_stage(folder / "stage.yaml", **changes))
    manifests = () if manifest is None else (str(manifest),)
    return dataclasses.replace(loaded, data=dataclasses.replace(loaded.data, manifests=manifests))


def both(folder: Path) -> dict[str, Path]:
    return {"audio_tower": folder, "language_model": folder}


@pytest.fixture
def train(tmp_path: Path, parent: Path, clips: Path, features: Path) -> Any:
    def run(
        name: str,
        *,
        manifest: Path | None = clips,
        resume: bool = False,
        watch: Any = None,
        note: Any = print,
        **changes: Any,
    ) -> Path:
        made = recipe(tmp_path, manifest, **changes)
        trainer.run(made, tmp_path / name, both(parent), features, resume=resume, watch=watch, note=note)
        return tmp_path / name

    return run


CHANGES: dict[str, dict[str, Any]] = {
    "answer": {"loss": {"naming": 0.3, "key_weight": 3.0}},
    "tagging": {
        "objective": "tagging",
        "starts_from": None,
        "model": tiny.MODEL,
        "trainable": ["encoder"],
        "lora": None,
    },
    "naming": {
        "objective": "naming",
        "loss": {"hearing": 1.0},
        "trainable": ["encoder", "aggregator", "qformer", "projectors"],
        "lora": None,
    },
}


@pytest.mark.parametrize(("objective", "step"), [("answer", 3), ("answer", 6), ("tagging", 6), ("answer", 8)])
def test_a_resumed_run_equals_an_undisturbed_one(train: Any, tmp_path: Path, objective: str, step: int) -> None:
    # 4 steps an epoch: 3 lies within the first, 6 within the second, 8 between two
    changes = {**CHANGES[objective], "max_steps": 9, "save_steps": step, "save_total_limit": 5}
    changes |= {"starts_from": "base", "model": None}
    whole = train("whole", **changes)
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped, ignore=shutil.ignore_patterns("model*", "config.json", "checkpoint-*"))
    shutil.copytree(whole / f"checkpoint-{step}", stopped / f"checkpoint-{step}")
    torn = stopped / f"checkpoint-{step + 1}"  # killed in the midst of saving
    shutil.copytree(stopped / f"checkpoint-{step}", torn)
    (torn / "trainer_state.json").write_text('{"global_step": 5, "log_hi')
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    (stopped / "metrics.jsonl").write_text("\n".join([*lines[: step + 1], lines[-1][:20]]))
    torch.manual_seed(99)
    train("stopped", resume=True, **changes)
    assert [m["step"] for m in tiny.metrics(stopped)] == list(range(1, 10))
    for key in ("loss", "learning_rate", "grad_norm"):
        assert [m[key] for m in tiny.metrics(stopped)] == [m[key] for m in tiny.metrics(whole)]
    expected, got = load_file(whole / "model.safetensors"), load_file(stopped / "model.safetensors")
    assert got.keys() == expected.keys()
    assert [k for k in expected if not torch.equal(expected[k], got[k])] == []


def test_a_finished_run_is_not_trained_further(train: Any) -> None:
    changes = {"max_steps": 3, "save_steps": 3, "lr_scheduler_type": "constant"}  # 4 steps an epoch
    output = train("run", **changes)
    weights, lines = load_file(output / "model.safetensors"), tiny.metrics(output)
    (output / "config.json").unlink()  # killed while the model was written
    train("run", resume=True, **changes)
    assert tiny.metrics(output) == lines
    assert all(torch.equal(tensor, weights[k]) for k, tensor in load_file(output / "model.safetensors").items())
    assert json.loads((output / "config.json").read_text())["lineage"][-1]["steps"] == 3
    train("run", resume=True, **changes | {"max_steps": 5})
    assert [m["step"] for m in tiny.metrics(output)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("logging_steps", [1, 10])
def test_metrics_and_progress(train: Any, logging_steps: int) -> None:
    seen: list[tuple[int, int]] = []
    show = lambda step, total, numbers: seen.append((step, total))  # noqa: E731
    output = train("run", max_steps=3, logging_steps=logging_steps, watch=show)
    lines = tiny.metrics(output)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert all(isinstance(v, (int, float)) for line in lines for v in line.values())
    assert {"loss", "learning_rate", "grad_norm", "epoch", "rows_per_s"} <= lines[0].keys()
    assert len({line["loss"] for line in lines}) == 3


def test_logged_loss_is_the_steps_own(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own: list[float] = []
    original = trainer.StageTrainer.training_step

    def step(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        own.append(float(loss := original(self, *args, **kwargs)))
        return loss

    monkeypatch.setattr(trainer.StageTrainer, "training_step", step)
    output = train("run", max_steps=3, gradient_accumulation_steps=2, logging_steps=2)
    assert [m["loss"] for m in tiny.metrics(output)] == pytest.approx(
        [sum(own[i : i + 2]) for i in (0, 2, 4)], rel=1e-5
    )


def test_the_same_seed_gives_the_same_weights_and_nothing_is_printed(train: Any, capfd: Any) -> None:
    first, second = (load_file(train(name) / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(first[k], second[k]) for k in first)
    other = load_file(train("three", seed=6) / "model.safetensors")
    assert any(not torch.equal(first[k], other[k]) for k in first)
    assert capfd.readouterr().out == ""


def test_frozen_parts_stay_and_the_named_parts_learn(train: Any, parent: Path) -> None:
    before, after = load_file(parent / "model.safetensors"), load_file(train("run") / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    adapted = {k for k in before if k.startswith("language_model") and ("q_proj" in k or "v_proj" in k)}
    assert adapted <= changed
    assert {k for k in changed if k.startswith("language_model")} == adapted
    assert not [k for k in changed if k.startswith("audio_tower.encoder")]
    for part in ("aggregator", "qformer", "qformer_projector", "aggregator_projector"):
        assert any(k.startswith(f"audio_tower.{part}.") for k in changed), part


@pytest.mark.parametrize("objective", ["text", "tagging", "naming", "answer"])
def test_every_objective_writes_a_model(
    objective: str, tmp_path: Path, parent: Path, clips: Path, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.quick_tokenizer(monkeypatch)
    text = {
        "objective": "text",
        "model": tiny.MODEL,
        "starts_from": None,
        "trainable": ["language_model", "prefix_positions"],
        "lora": None,
    }
    changes = text | {"data": {"scenes": 4}} if objective == "text" else CHANGES[objective]
    made = recipe(tmp_path, None if objective == "text" else clips, **changes)
    output = tmp_path / "out"
    trainer.run(made, output, both(parent) if made.starts_from else {}, features)
    model = gama.load(output)
    assert isinstance(str(model.ask(clips.parent / "audio/000000.flac", "what happened?", max_new_tokens=2)), str)
    lineage = model.model.config.lineage[-1]
    assert lineage["stage"] == "stage"
    assert lineage["steps"] == 2
    assert sum(part["trainable"] for part in lineage["parameters"].values()) > 0
    kept = yaml.safe_load((output / "recipe.yaml").read_text())
    assert kept["objective"] == objective
    assert kept["max_steps"] == 2
    assert not list(output.glob("*.tmp"))


def test_the_towers_parent_may_be_another(
    tmp_path: Path, parent: Path, clips: Path, features: Path, train: Any
) -> None:
    tower = train("tower", **CHANGES["naming"] | {"learning_rate": 0.1})
    made = recipe(tmp_path, clips, trainable=["projectors"], learning_rate=1e-3)
    trainer.run(made, tmp_path / "out", {"audio_tower": tower, "language_model": parent}, features)
    result = load_file(tmp_path / "out/model.safetensors")
    from_tower, from_language = load_file(tower / "model.safetensors"), load_file(parent / "model.safetensors")
    assert all(torch.equal(result[k], from_tower[k]) for k in result if k.startswith("audio_tower.encoder"))
    assert all(torch.equal(result[k], from_language[k]) for k in result if "embed_tokens" in k)
    lineage = json.loads((tmp_path / "out/config.json").read_text())["lineage"]
    assert lineage[-1]["parents"].keys() == {"audio_tower", "language_model"}
    assert len(set(lineage[-1]["parents"].values())) == 2


def test_rows_in_the_originals_form_train(train: Any, clips: Path, tmp_path: Path) -> None:
    audio = [str(path) for path in sorted((clips.parent / "audio").iterdir())[:3]]
    rows = [{"audio_id": a, "instruction": "What is this?", "output": f"Sound {i}."} for i, a in enumerate(audio)]
    rows += [{"audio_id": "empty", "instruction": "Hello?", "output": "Yes."}]
    manifest = tiny.write_rows(tmp_path / "rows.json", rows)
    # a recipe whose naming loss wants the truth leaves clips without it out of that loss
    output = train("run", manifest=manifest, loss={"naming": 0.3, "train_on_inputs": True})
    assert len(tiny.metrics(output)) == 2
    with pytest.raises(ManifestError, match=r"000000.flac: its row carries no 'events'"):
        train("tags", manifest=manifest, **CHANGES["naming"])


def test_a_loss_that_is_no_number_ends_the_run(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = trainer.Answering.forward
    calls = []

    @functools.wraps(original)  # the Trainer reads the signature
    def forward(self: Any, **inputs: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        loss = original(self, **inputs)["loss"]
        return {"loss": loss * float("nan") if len(calls) == 3 else loss}

    monkeypatch.setattr(trainer.Answering, "forward", forward)
    with pytest.raises(
        GamaError, match=r"the loss became nan at step 3; checkpoint-2 is kept \(train anew into another"
    ):
        train("run", max_steps=5, save_steps=1)
    output = tmp_path / "run"
    assert [m["step"] for m in tiny.metrics(output)] == [1, 2]
    assert all(torch.isfinite(v).all() for v in load_file(output / "checkpoint-2/training.safetensors").values())
    monkeypatch.setattr(trainer.Answering, "forward", original)
    train("run", max_steps=5, save_steps=1, resume=True)
    assert [m["step"] for m in tiny.metrics(output)] == [1, 2, 3, 4, 5]


def test_gradients_that_are_no_numbers_never_reach_the_weights(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Trainer, "_clip_grad_norm", lambda self, model: torch.tensor(float("inf")))
    with pytest.raises(GamaError, match=r"the gradient norm became inf at step 1 \(train anew into another --output"):
        train("run")


def test_a_clip_that_vanished_is_named(train: Any, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips.parent, tmp_path / "scenes")
    (tmp_path / "scenes/audio/000004.flac").unlink()
    with pytest.raises(AudioError, match=r"audio/000004.flac: No such file"):
        train("run", manifest=tmp_path / "scenes/manifest.json")
    assert list((tmp_path / "run").iterdir()) == []  # so that the next try is not refused


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_vanishes_in_mid_run_ends_it_clearly(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    original, gone = ClipDataset._features, 5

    def features(self: Any, clip: int) -> Any:
        if clip == gone:
            raise AudioError("5.flac: its features are gone", "put them back")
        return original(self, clip)

    monkeypatch.setattr(ClipDataset, "_features", features)
    with pytest.raises(AudioError) as caught:
        train("run", max_steps=8, save_steps=1, dataloader_num_workers=workers)
    assert str(caught.value) == "5.flac: its features are gone (put them back)"
    done = [m["step"] for m in tiny.metrics(tmp_path / "run")] if (tmp_path / "run/metrics.jsonl").exists() else []
    assert len(done) < 4
    monkeypatch.setattr(ClipDataset, "_features", original)
    output = train("run", max_steps=8, save_steps=1, resume=True)
    assert [m["step"] for m in tiny.metrics(output)] == list(range(1, 9))


def test_a_run_is_not_continued_on_other_rows_or_another_parent(
    train: Any, tmp_path: Path, parent: Path, clips: Path
) -> None:
    shutil.copytree(clips.parent, tmp_path / "scenes")
    manifest = tmp_path / "scenes/manifest.json"
    train("run", manifest=manifest, max_steps=1, save_steps=1)
    rows = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(rows[:-1]))
    with pytest.raises(RecipeError, match="run: the content of its manifests has changed since checkpoint-1"):
        train("run", manifest=manifest, max_steps=2, resume=True)
    manifest.write_text(json.dumps(rows, indent=3))
    with pytest.raises(RecipeError, match="has changed"):
        train("run", manifest=manifest, max_steps=2, resume=True)
    manifest.write_bytes(clips.read_bytes())
    lineage = tmp_path / "run/checkpoint-1/lineage.json"
    assert len(tiny.metrics(train("run", manifest=manifest, max_steps=2, resume=True))) == 2
    beside = tmp_path / "run/checkpoint-2/lineage.json"
    assert not lineage.exists() and beside.exists()
    text = beside.read_text().replace(json.loads(beside.read_text())["parents"]["language_model"], "0" * 64)
    beside.write_text(text)
    with pytest.raises(RecipeError, match="the model it started from has changed since checkpoint-2"):
        train("run", manifest=manifest, max_steps=3, resume=True)


def test_a_run_is_not_continued_with_another_recipe(train: Any, tmp_path: Path, clips: Path) -> None:
    held = {"questions": 2, "validation": str(clips), "samples": 0}
    output = train("run", max_steps=2, save_steps=1, save_total_limit=2, data=held, warmup_steps=1)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    again = {"max_steps": 3, "save_steps": 3, "save_total_limit": 1, "data": held, "warmup_steps": 1}
    with pytest.raises(RecipeError, match=r"run: learning_rate changed since checkpoint-2 was .*another --output\)"):
        train("run", resume=True, **again | {"learning_rate": 1e-3})
    with pytest.raises(RecipeError, match="run: trainable, lora, data.questions, warmup_steps changed since"):
        train(
            "run",
            resume=True,
            **again | {"trainable": ["projectors"], "lora": {"r": 4}, "warmup_steps": None, "data": {}},
        )
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    # limits, what is looked at, a default spelled out and a batch divided otherwise are no other recipe
    same = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "weight_decay": 0, "eval_steps": 3}
    train("run", resume=True, **again | same | {"data": {"questions": 2, "packing": True, "samples": 1}})
    assert [m["step"] for m in tiny.metrics(output)] == [1, 2, 3]


@pytest.mark.parametrize("recipes", ["", "mini", "small", "paper"])
def test_every_packaged_recipe_is_its_own(tmp_path: Path, recipes: str) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    for file in sorted((recipes_root() / recipes).glob("*.yaml")):
        if file.stem in ("data", "model"):
            continue
        made = load_recipe(file, ["adam_epsilon=1e-9", "report_to=null", "fsdp_config={version: 1}"])
        (tmp_path / "checkpoint-1/recipe.yaml").write_text(recipe_text(made))
        elsewhere = dataclasses.replace(made.data, manifests=tuple(str(Path(m).resolve()) for m in made.data.manifests))
        require_same_recipe(tmp_path / "checkpoint-1", dataclasses.replace(made, data=elsewhere))
        with pytest.raises(RecipeError, match="adam_epsilon changed since checkpoint-1"):
            require_same_recipe(tmp_path / "checkpoint-1", load_recipe(file, ["fsdp_config={version: 1}"]))


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrations, "find_spec", lambda name: None)
    for changes, package in [
        ({"report_to": "tensorboard"}, "tensorboard"),
        ({"report_to": ["none", "comet_ml"]}, "comet-ml"),
        ({"deepspeed": "zero2.json"}, "deepspeed"),
    ]:
        with pytest.raises(MissingPackageError, match=rf"{package}, which is not installed \(pip install {package}\)"):
            train("run", **changes)
    with pytest.raises(RecipeError, match="report_to is 'tensorbord', expected one of all, none, azure_ml"):
        train("run", report_to="tensorbord")
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_reported_and_kept(train: Any, tmp_path: Path) -> None:
    whole = tiny.metrics(train("whole", max_steps=4, save_steps=2))
    told: list[str] = []
    train("run", max_steps=4, save_steps=2, save_total_limit=2)
    for path in ("config.json", "model.safetensors"):
        (tmp_path / "run" / path).unlink()
    damaged = tmp_path / "run" / "checkpoint-4"
    (damaged / "optimizer.pt").write_bytes(b"")
    train("run", resume=True, max_steps=4, save_steps=2, save_total_limit=2, note=told.append)
    size = json.loads((damaged / "files.json").read_text())["optimizer.pt"][0]
    assert told == [
        f"{damaged} is not whole: optimizer.pt has 0 bytes, {size} were written; it stays where it is, and the run "
        "goes on from checkpoint-2"
    ]
    assert (tmp_path / "run" / "checkpoint-4.damaged" / "optimizer.pt").read_bytes() == b""
    again = tiny.metrics(tmp_path / "run")
    assert [line["loss"] for line in again] == [line["loss"] for line in whole]


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(train: Any, tmp_path: Path) -> None:
    train("run", max_steps=2, save_steps=2)
    (tmp_path / "run" / "checkpoint-2" / "optimizer.pt").write_bytes(b"")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="checkpoint-2 is not whole: optimizer.pt has 0 bytes"):
        train("run", resume=True, max_steps=2, save_steps=2)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_an_optimizer_that_is_no_optimizer_is_refused_unrun(train: Any, tmp_path: Path) -> None:
    import os
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    train("run", max_steps=2, save_steps=2)
    folder = tmp_path / "run" / "checkpoint-2"
    (folder / "optimizer.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    (folder / "files.json").unlink()
    with pytest.raises(CheckpointError, match="optimizer.pt or scheduler.pt holds something else than numbers") as e:
        train("run", resume=True, max_steps=4, save_steps=2)
    assert "weights_only" not in str(e.value) and not (tmp_path / "executed").exists()


def test_empty_answers_are_reported(train: Any, clips: Path, tmp_path: Path) -> None:
    rows = [
        {"audio_id": str(clips.parent / "audio" / f"00000{n}.flac"), "instruction": "What?", "output": output}
        for n, output in enumerate(["A dog.", "", "Rain.", " "])
    ]
    manifest = tiny.write_rows(tmp_path / "rows.json", rows)
    told: list[str] = []
    train("run", manifest=manifest, max_steps=1, note=told.append)
    assert told == [
        f"2 row(s) have an empty answer and teach the model to say nothing: {manifest}: row 2, {manifest}: row 4; "
        "gama prepare check MANIFEST --out CLEAN leaves them out"
    ]


def test_an_output_folder_in_use_is_refused_untouched(train: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("mine")
    with pytest.raises(RecipeError, match=r"already holds a run \(continue it with --resume"):
        train("run")
    with pytest.raises(RecipeError, match="holds no run to continue"):
        train("run", resume=True)
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("metrics.jsonl", "mine")]


def test_wrong_training_values_are_recipe_errors(train: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="stage: .*cosin"):
        train("run", lr_scheduler_type="cosin")
    assert not (tmp_path / "run").exists()


def test_lora_is_merged_exactly(parent: Path) -> None:
    model, _ = stages.start(Recipe("x", "answer"), both(parent))
    model.eval()
    stages.add_lora(model, Lora(r=4, alpha=8, dropout=0.5, target_modules=("q_proj", "up_proj")))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        stages.merge_lora(model)
        merged = model(input_ids=ids).logits
    assert not [n for n, _ in model.named_parameters() if "lora" in n or "base_layer" in n]
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    plain, _ = stages.start(Recipe("x", "answer"), both(parent))
    assert not torch.allclose(plain.eval()(input_ids=ids).logits, adapted, atol=1e-3)


def test_one_run_at_a_time_trains_into_a_folder(train: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (
        locked(tmp_path / "run", "this run", inside=True),
        pytest.raises(LockedError, match="has been writing this run"),
    ):
        train("run")
    assert list((tmp_path / "run").iterdir()) == []
    assert (train("run", max_steps=1) / "config.json").is_file()
    assert not (tmp_path / "run" / ".lock").exists()
