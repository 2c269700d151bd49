"""Run one stage: data, model, transformers' Trainer, and what is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

import gama as package
from gama.data.collator import AnswerCollator, NamingCollator, TaggingCollator, TranscriptIds
from gama.data.dataset import ClipDataset, EpochDataset, SymbolicScenes
from gama.errors import RecipeError
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.training import stages
from gama.training.objectives import Answering, NamingObjective, Tagging, TrainingObjective, describe
from gama.training.recipe import Recipe

_WEIGHTS = "training.safetensors"  # model and training heads of a checkpoint
_COMMON_WORDS = ("quiet", "end", "none", "noise")


class StageTrainer(Trainer):
    """transformers' Trainer around a :class:`TrainingObjective`, whose weights include tied ones."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        state = state_dict if state_dict is not None else self.model.state_dict()
        own = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
        partial = folder / f"{_WEIGHTS}.tmp"
        save_file(own, partial)
        os.replace(partial, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        (model or self.model).load_state_dict(state, strict=True)


class MetricsLog(TrainerCallback):
    """One JSON line for each optimizer step in ``metrics.jsonl``; after a resume no step stands twice."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if json.loads(line)["step"] <= state.global_step]
            self.path.write_text("".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def run(recipe: Recipe, output: Path, parents: Mapping[str, Path], features: Path, *, resume: bool = False) -> None:
    """Train a stage and write its model into ``output``.

    Args:
        recipe: the stage, data paths resolved.
        output: folder of the run: ``checkpoint-STEP/``, ``metrics.jsonl``, ``recipe.yaml`` and the final model.
        parents: see :func:`gama.training.stages.start`.
        features: folder of the feature cache.
        resume: continue from the last whole checkpoint.

    Raises:
        RecipeError: when ``output`` holds a run and ``resume`` is not asked for.
    """
    _claim(output, resume)
    gama, processor = stages.start(recipe, parents)
    if recipe.objective == "text" and not parents:
        stages.match_heads(gama)
    if recipe.lora is not None:
        stages.add_lora(gama, recipe.lora)
    stages.set_trainable(gama, recipe.trainable)
    arguments = _arguments(recipe, output)
    dataset = _dataset(recipe, features, arguments)
    objective, collator = _objective(recipe, gama, processor, arguments.seed)
    (output / "recipe.yaml").write_text(yaml.safe_dump(recipe.resolved(), sort_keys=False), encoding="utf-8")
    trainer = StageTrainer(
        model=objective,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[MetricsLog(output / "metrics.jsonl")],
    )
    trainer.train(resume_from_checkpoint=_last_checkpoint(output) if resume else None)
    ledger = describe(objective)
    if recipe.lora is not None:
        stages.merge_lora(gama)
    gama.config.lineage = [*gama.config.lineage, _lineage(recipe, parents, ledger, trainer.state.global_step)]
    save(gama, processor, output)


def save(gama: GamaForConditionalGeneration, processor: GamaProcessor, output: Path) -> None:
    """Write model and processor under a temporary name and move them into place."""
    partial = output / ".final.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    gama.save_pretrained(partial)
    processor.save_pretrained(partial)
    for file in sorted(partial.iterdir(), key=lambda f: f.name == "config.json"):
        os.replace(file, output / file.name)
    partial.rmdir()


def _claim(output: Path, resume: bool) -> None:
    if output.exists() and any(output.iterdir()) and not resume:
        raise RecipeError(f"{output} already holds a run", "continue it with --resume, or give another --output")
    output.mkdir(parents=True, exist_ok=True)


def _last_checkpoint(output: Path) -> str | None:
    whole = [
        path
        for path in output.glob("checkpoint-*")
        if (path / "trainer_state.json").exists() and (path / _WEIGHTS).exists()
    ]
    return str(max(whole, key=lambda p: int(p.name.split("-")[1]))) if whole else None


def _arguments(recipe: Recipe, output: Path) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "report_to": [],
        "logging_steps": 1,
        "save_total_limit": 1,
        "disable_tqdm": True,
    }
    if not torch.cuda.is_available():
        defaults |= {"use_cpu": True, "dataloader_pin_memory": False}
    try:
        return TrainingArguments(output_dir=str(output), **{**defaults, **recipe.training})
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{recipe.name}: {error}") from None


def _dataset(recipe: Recipe, features: Path, arguments: TrainingArguments) -> EpochDataset:
    data = recipe.data
    if recipe.objective == "text":
        return SymbolicScenes(data.scenes, seed=arguments.seed, questions=data.questions, tasks=data.tasks)
    return ClipDataset(
        [Path(m) for m in data.manifests],
        features,
        seed=arguments.seed,
        questions=0 if recipe.objective in ("tagging", "naming") else data.questions,
        tasks=data.tasks,
        folds=data.folds,
        augmentation=data.augmentation,
        workers=max(1, torch.get_num_threads()),
    )


def _objective(
    recipe: Recipe, gama: GamaForConditionalGeneration, processor: GamaProcessor, seed: int
) -> tuple[TrainingObjective, Any]:
    if recipe.objective == "tagging":
        return Tagging(gama), TaggingCollator(seed=seed)
    loss = recipe.loss
    uses_words = recipe.objective != "answer" or loss.naming > 0
    words = TranscriptIds(processor.tokenizer) if uses_words else None
    common = torch.tensor([words.ids[w] for w in _COMMON_WORDS] if words else [])
    if recipe.objective == "naming":
        return NamingObjective(gama, common), NamingCollator(processor.tokenizer)
    collator = AnswerCollator(
        processor,
        train_on_inputs=loss.train_on_inputs,
        key_weight=loss.key_weight,
        transcripts=recipe.objective == "text",
        naming=loss.naming > 0,
    )
    return Answering(gama, loss.naming, common), collator


def _lineage(recipe: Recipe, parents: Mapping[str, Path], ledger: Mapping[str, Any], steps: int) -> dict[str, Any]:
    resolved = json.dumps(recipe.resolved(), sort_keys=True, default=str)
    return {
        "stage": recipe.name,
        "recipe_sha256": hashlib.sha256(resolved.encode()).hexdigest(),
        "parents": {part: _weights_hash(folder) for part, folder in parents.items()},
        "steps": steps,
        "gama": package.__version__,
        "parameters": dict(ledger),
    }


def _weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("model*.safetensors")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
