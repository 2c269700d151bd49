"""Run one stage: data, model, transformers' Trainer, and what is kept."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerState, TrainingArguments, set_seed

from gama.atomic import make_folder, write_text
from gama.checkpoints.apart import base_of
from gama.data.collator import AnswerCollator, NamingCollator, TaggingCollator, TranscriptIds
from gama.data.dataset import ClipDataset, EpochDataset, SymbolicScenes
from gama.errors import MissingPackageError, RecipeError
from gama.locks import locked
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.processes import first_process_first, rank
from gama.products import quicken
from gama.training import checkpoints, stages
from gama.training.curriculum import check_output
from gama.training.ends import clear_ends
from gama.training.held_out import Chosen, split, still
from gama.training.integrations import require_packages
from gama.training.kept import halve, is_halved, keep
from gama.training.lineage import (
    LINEAGE,
    RECIPE,
    Lineage,
    recipe_text,
    require_same_origin,
    require_same_recipe,
    trace,
)
from gama.training.loop import Epochs, StageTrainer
from gama.training.metrics import METRICS, MetricsLog, StepNumbers, Watch
from gama.training.objectives import (
    Answering,
    NamingObjective,
    Tagging,
    TrainingObjective,
    attention_of,
    describe,
)
from gama.training.recipe import Recipe
from gama.training.saving import save, save_apart
from gama.training.validation import Show, Validation

logger = logging.getLogger(__name__)

_COMMON_WORDS = ("quiet", "end", "none", "noise")


def run(
    recipe: Recipe,
    output: Path,
    parents: Mapping[str, Path],
    features: Path,
    *,
    resume: bool = False,
    watch: Watch | None = None,
    show: Show | None = None,
    note: Callable[[str], None] = logger.warning,
) -> None:
    """Train a stage and write its model into ``output``.

    Args:
        recipe: the stage, data paths resolved.
        output: folder of the run: ``checkpoint-STEP/``, ``metrics.jsonl``, ``recipe.yaml`` and the final model.
        parents: see :func:`gama.training.stages.start`.
        features: folder of the feature cache.
        resume: continue from the last whole checkpoint. Damaged ones are reported and stay where they are.
        watch: shown the progress.
        show: shown the answers to held-out questions.
        note: told of damaged checkpoints and where the run goes on for that reason, and of empty answers.

    Raises:
        RecipeError: when ``output`` holds a run and ``resume`` is not asked for, for a wrong training argument, or
            where parent, rows or recipe are no longer those that the run began with.
        CheckpointError: where the run has checkpoints and none of them is whole; nothing is changed.
        MissingPackageError: for a tracker or DeepSpeed that is not installed; nothing is written.
        ManifestError, AudioError: for data that cannot be used.
        LockedError: where another process trains into ``output``.
        GamaError: where loss or gradients are no longer numbers, or the disk is full.
    """
    check_output(output, resume)
    require_packages(recipe)
    arguments = _arguments(recipe, output)
    with clear_ends(output), _sole_writer(output):
        check_output(output, resume)  # once more: another run may have begun since
        checkpoint, damaged = checkpoints.resumable(output) if resume else (None, [])
        for fault in damaged:
            note(f"{fault}; it stays where it is, and the run goes on from {checkpoint and checkpoint.name}")
        if checkpoint is not None:
            require_same_recipe(checkpoint, recipe)
        set_seed(arguments.seed)  # adapters and heads are drawn before the Trainer seeds
        gama, processor = _model(recipe, parents)
        with first_process_first():  # it computes the features that the others read
            dataset, held_out = _datasets(recipe, features, arguments, note)
        objective, collator = _objective(recipe, gama, processor, arguments.seed)
        if isinstance(objective, Answering) and recipe.data.keep_frozen:
            objective.layout = keep(gama.audio_tower, dataset, features, bf16=arguments.bf16, device=arguments.device)
        if is_halved(recipe):
            halve(gama.language_model)
        lineage = trace(recipe, parents, describe(objective))
        if checkpoint is not None:
            require_same_origin(checkpoint, lineage)
        if arguments.should_save:
            checkpoints.sweep(output, arguments.save_total_limit)
            write_text(output / RECIPE, recipe_text(recipe))
        numbers = StepNumbers()
        trainer = StageTrainer(
            model=objective,
            args=arguments,
            train_dataset=dataset,
            eval_dataset=held_out,
            data_collator=collator,
            callbacks=[Epochs(dataset), MetricsLog(output / METRICS, numbers, watch)],
            numbers=numbers,
            beside=lambda step: _notes(recipe, lineage, step),
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        if held_out is not None:
            numbers_file, count = output / METRICS, recipe.data.samples
            bf16 = arguments.bf16
            trainer.add_callback(
                Validation(numbers_file, held_out, collator, objective, count=count, bf16=bf16, show=show)
            )
        steps = _train(trainer, checkpoint)
        state = trainer.gathered()
        if arguments.should_save:
            if state is not None:  # this process holds a piece of every weight
                gama, processor = _model(recipe, parents)
                gama.load_state_dict(state, strict=False)
            gama.config.lineage = [*gama.config.lineage, lineage.entry(steps)]
            _write(recipe, gama, processor, output, parents)


@contextmanager
def _sole_writer(output: Path) -> Iterator[None]:
    """Keep every other run out of a folder; the first of several processes does so for all of them."""
    make_folder(output)
    with locked(output, "this run", inside=True) if rank() == 0 else nullcontext():
        yield


def _model(recipe: Recipe, parents: Mapping[str, Path]) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
    """What the stage begins with: weights, adapters, and which of them learn."""
    gama, processor = stages.start(recipe, parents)
    if recipe.objective == "text" and not parents:
        stages.match_heads(gama)
    if recipe.lora is not None and not stages.has_lora(gama):
        stages.add_lora(gama, recipe.lora)
    stages.set_trainable(gama, recipe.trainable, lora=recipe.lora is not None)
    quicken(gama)
    return gama, processor


def _notes(recipe: Recipe, lineage: Lineage, step: int) -> dict[str, str]:
    return {RECIPE: recipe_text(recipe), LINEAGE: json.dumps(lineage.entry(step), indent=2) + "\n"}


def _write(
    recipe: Recipe,
    gama: GamaForConditionalGeneration,
    processor: GamaProcessor,
    output: Path,
    parents: Mapping[str, Path],
) -> None:
    """The final model. A start from nothing has no base and is written whole."""
    if recipe.save == "adapter" and parents:
        save_apart(gama, processor, output, base_of(parents["language_model"]))
        return
    if stages.has_lora(gama):
        stages.merge_lora(gama)
    save(gama, processor, output)


def _train(trainer: StageTrainer, checkpoint: Path | None) -> int:
    """Train from a checkpoint, or from the beginning, to the end; returns the steps done."""
    if checkpoint is not None:
        done = TrainerState.load_from_json(str(checkpoint / checkpoints.STATE)).global_step
        if 0 < trainer.args.max_steps <= done:
            trainer._load_from_checkpoint(str(checkpoint))  # the Trainer would do one more step
            return int(done)
    with attention_of(plain=trainer.args.use_cpu and trainer.args.bf16):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return int(trainer.state.global_step)


def _arguments(recipe: Recipe, output: Path) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "report_to": [],
        "logging_steps": 1,
        "save_total_limit": 1,
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # it would hide a loss that is no number
    }
    if recipe.data.validation is not None:
        defaults |= {"eval_strategy": "steps", "eval_steps": recipe.training.get("save_steps", 500)}
    if not torch.cuda.is_available():
        defaults |= {"use_cpu": True, "dataloader_pin_memory": False}
    given = dict(recipe.training)
    for key in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = key.replace("gradient", "activation")
        if key in given and new in {field.name for field in dataclasses.fields(TrainingArguments)}:
            given[new] = given.pop(key)  # the old names are to go in transformers 6
    try:
        return TrainingArguments(output_dir=str(output), **{**defaults, **given})
    except ImportError as error:
        raise MissingPackageError(f"{recipe.name}: {' '.join(str(error).split())}") from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{recipe.name}: {error}") from None


def _datasets(
    recipe: Recipe, features: Path, arguments: TrainingArguments, note: Callable[[str], None]
) -> tuple[EpochDataset, ClipDataset | Chosen | None]:
    """What the stage trains on, and what it is tested on while it does."""
    data = recipe.data
    if recipe.objective == "text":
        scenes = SymbolicScenes(data.scenes, seed=arguments.seed, questions=data.questions, tasks=data.tasks)
        return scenes, None
    clips = _clips(recipe, data.manifests, features, arguments)
    if empty := clips.empty_answers:
        what = f"{len(empty)} row(s) have an empty answer and teach the model to say nothing"
        note(f"{what}: {clips.rows.where(empty)}; gama prepare check MANIFEST --out CLEAN leaves them out")
    if isinstance(data.validation, str):
        return clips, still(_clips(recipe, [data.validation], features, arguments))
    return (clips, None) if data.validation is None else split(clips, data.validation)


def _clips(recipe: Recipe, manifests: Sequence[str], features: Path, arguments: TrainingArguments) -> ClipDataset:
    data = recipe.data
    return ClipDataset(
        [Path(m) for m in manifests],
        features,
        seed=arguments.seed,
        questions=0 if recipe.objective in ("tagging", "naming") else data.questions,
        tasks=data.tasks,
        folds=data.folds,
        packing=data.packing,
        augmentation=data.augmentation,
        workers=max(1, torch.get_num_threads()),
        truth=recipe.objective in ("tagging", "naming"),
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
        return NamingObjective(gama, common, loss.hearing), NamingCollator(
            processor.tokenizer, hearing=loss.hearing > 0
        )
    collator = AnswerCollator(
        processor,
        train_on_inputs=loss.train_on_inputs,
        key_weight=loss.key_weight,
        transcripts=recipe.objective == "text",
        naming=loss.naming > 0,
        max_answer=recipe.data.cutoff - 1,
    )
    return Answering(gama, loss.naming, common), collator
