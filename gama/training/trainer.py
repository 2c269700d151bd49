"""Run one stage: data, model, transformers' Trainer, and what is kept."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed

import gama as package
from gama.data.collator import AnswerCollator, NamingCollator, TaggingCollator, TranscriptIds
from gama.data.dataset import ClipDataset, EpochDataset, SymbolicScenes
from gama.errors import GamaError, RecipeError
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.training import stages
from gama.training.curriculum import check_output
from gama.training.objectives import Answering, NamingObjective, Tagging, TrainingObjective, describe
from gama.training.recipe import Recipe

_WEIGHTS = "training.safetensors"  # model and training heads of a checkpoint
_COMMON_WORDS = ("quiet", "end", "none", "noise")


Watch = Callable[[int, int, Mapping[str, float]], None]
"""Called after every optimizer step with its number, how many there will be, and the numbers logged last."""


class StageTrainer(Trainer):
    """transformers' Trainer around a :class:`TrainingObjective`, whose weights include tied ones.

    It stops at the first loss or gradient that is no number, before the weights are touched.
    """

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(model, *args, **kwargs)
        self._require_finite("loss", loss)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if not self.args.fp16:  # there the scaler skips such a step by design
            self._require_finite("gradient norm", norm)
        return norm

    def _require_finite(self, what: str, value: Any) -> None:
        if value is not None and not math.isfinite(float(value)):
            raise GamaError(
                f"the {what} became {float(value)} at step {self.state.global_step + 1}; the last checkpoint is kept",
                "lower learning_rate and continue with --resume",
            )

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
    """One JSON line for each logged step in ``metrics.jsonl``; after a resume no step stands twice.

    Args:
        path: the file.
        watch: shown the progress.
    """

    def __init__(self, path: Path, watch: Watch | None = None) -> None:
        self.path = path
        self.watch = watch
        self.latest: dict[str, float] = {}
        self.last = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.last = (state.global_step, time.monotonic())
        if self.path.exists():
            kept = [
                line for line in self.path.read_text(encoding="utf-8").splitlines() if _step(line) <= state.global_step
            ]
            _replace(self.path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        step, now = state.global_step, time.monotonic()
        rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size * (step - self.last[0])
        self.latest = {name: float(value) for name, value in logs.items()}  # some versions give text
        self.latest["rows_per_s"] = round(rows / max(now - self.last[1], 1e-9), 3)
        self.last = (step, now)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **self.latest}) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.watch is not None and state.is_world_process_zero:
            self.watch(state.global_step, state.max_steps, self.latest)


class Epochs(TrainerCallback):
    """Tells the data which epoch it is: accelerate forgets to where batches are skipped or shared among processes."""

    def __init__(self, dataset: EpochDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.dataset.set_epoch(int((state.epoch or 0.0) + 1e-6))


def _step(line: str) -> float:
    """The step of a line of metrics; infinity for a line that was cut short when a run was killed."""
    try:
        return float(json.loads(line)["step"])
    except json.JSONDecodeError:
        return math.inf


def run(
    recipe: Recipe,
    output: Path,
    parents: Mapping[str, Path],
    features: Path,
    *,
    resume: bool = False,
    watch: Watch | None = None,
) -> None:
    """Train a stage and write its model into ``output``.

    Args:
        recipe: the stage, data paths resolved.
        output: folder of the run: ``checkpoint-STEP/``, ``metrics.jsonl``, ``recipe.yaml`` and the final model.
        parents: see :func:`gama.training.stages.start`.
        features: folder of the feature cache.
        resume: continue from the last whole checkpoint.
        watch: shown the progress.

    Raises:
        RecipeError: when ``output`` holds a run and ``resume`` is not asked for, or for a wrong training argument.
        ManifestError, AudioError: for data that cannot be used.
        GamaError: where loss or gradients are no longer numbers.
    """
    check_output(output, resume)
    arguments = _arguments(recipe, output)
    output.mkdir(parents=True, exist_ok=True)
    set_seed(arguments.seed)  # adapters and heads are drawn before the Trainer seeds
    gama, processor = stages.start(recipe, parents)
    if recipe.objective == "text" and not parents:
        stages.match_heads(gama)
    if recipe.lora is not None:
        stages.add_lora(gama, recipe.lora)
    stages.set_trainable(gama, recipe.trainable)
    dataset = _dataset(recipe, features, arguments)
    objective, collator = _objective(recipe, gama, processor, arguments.seed)
    _replace(output / "recipe.yaml", yaml.safe_dump(recipe.resolved(), sort_keys=False))
    trainer = StageTrainer(
        model=objective,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[Epochs(dataset), MetricsLog(output / "metrics.jsonl", watch)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    steps = _train(trainer, _last_checkpoint(output) if resume else None)
    ledger = describe(objective)
    if recipe.lora is not None:
        stages.merge_lora(gama)
    gama.config.lineage = [*gama.config.lineage, _lineage(recipe, parents, ledger, steps)]
    save(gama, processor, output)


def _train(trainer: StageTrainer, checkpoint: str | None) -> int:
    """Train from a checkpoint, or from the beginning, to the end; returns the steps done."""
    if checkpoint is not None:
        done = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json")).global_step
        if 0 < trainer.args.max_steps <= done:
            trainer._load_from_checkpoint(checkpoint)  # the Trainer would do one more step
            return done
    with _attention(trainer.args):
        trainer.train(resume_from_checkpoint=checkpoint)
    return int(trainer.state.global_step)


@contextmanager
def _attention(arguments: TrainingArguments) -> Iterator[None]:
    """On a CPU in bf16 torch's fused attention is slow to train: plain matrix products take two thirds of its time."""
    if not (arguments.use_cpu and arguments.bf16):
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # of the CPU's too, whatever its name says
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def save(gama: GamaForConditionalGeneration, processor: GamaProcessor, output: Path) -> None:
    """Write model and processor under a temporary name and move them into place."""
    partial = output / ".final.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    gama.save_pretrained(partial)
    processor.save_pretrained(partial)
    for file in sorted(partial.iterdir(), key=lambda f: f.name == "config.json"):
        file.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(file, output / file.name)
    partial.rmdir()


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _last_checkpoint(output: Path) -> str | None:
    numbers = [path.name.removeprefix("checkpoint-") for path in output.glob("checkpoint-*")]
    for number in sorted((int(n) for n in numbers if n.isdigit()), reverse=True):
        if _whole(output / f"checkpoint-{number}"):
            return str(output / f"checkpoint-{number}")
    return None


def _whole(checkpoint: Path) -> bool:
    """Whether a save came to its end: the state is written last, and may itself be cut short."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return (checkpoint / _WEIGHTS).is_file()


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
