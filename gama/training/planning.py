"""What a stage will take before it starts: parameters, memory, micro-batch, steps, tokens, hours."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml

from gama.model.configuration import GamaConfig
from gama.training import calibration, footprint
from gama.training.calibration import Speed
from gama.training.footprint import FLOAT, Part, Shape, Step
from gama.training.recipe import Data, Recipe
from gama.training.row_lengths import row_lengths

_EPOCHS = 3.0  # where a recipe names neither steps nor epochs, as TrainingArguments has it
_MICRO_BATCH = 8  # the same
_CUDA_CONTEXT = 600 * 2**20  # bytes a process holds on a GPU before it allocates anything
_SPARE = 0.92  # share of a memory that can be used: the rest is lost between blocks
_COUNTS = ("bf16", "gradient_checkpointing", "activation_checkpointing")  # training arguments that change a step
_LARGEST = 4096  # rows of a micro-batch that are considered
# bytes of optimizer states for each parameter that learns; AdamW's two averages where an optimizer is not named here
_STATES = {"sgd": 0, "adafactor": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1}


@dataclass(frozen=True)
class Memory:
    """Bytes by what they hold.

    Attributes:
        weights: of every part, but for what is mapped.
        gradients, optimizer: of what learns.
        activations: of a micro-batch of the recipe, at their highest.
        program: what the process holds before: libraries on a CPU, the context on a GPU.
        mapped: frozen weights that stay in the file they came from: read, not held, and not in the total. The system
            can take their room and read them again.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    program: int
    mapped: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.program


@dataclass(frozen=True)
class Plan:
    """What a stage will take.

    Attributes:
        name: of the stage.
        parts: parameters by part.
        memory: of one process.
        available: bytes of the GPU asked for, or of what this machine would train on.
        where: what that memory is.
        micro_batch: of the recipe, and ``largest`` the largest one that fits, 0 where none does.
        accumulation: of the recipe, and ``kept_accumulation`` the one that keeps the batch with ``largest``.
        rows: items an epoch; None where the data is not there.
        steps: optimizer steps; None where they depend on data that is not there.
        tokens: seen in all steps; None likewise.
        tokens_counted: whether the lengths of rows were counted; otherwise they are the longest there can be.
        speed: what was measured here.
        hours: all steps on this machine; None where steps are not known.
        seconds_a_step: one optimizer step on this machine.
        flops_a_step: its floating-point operations.
    """

    name: str
    parts: tuple[Part, ...]
    memory: Memory
    available: int
    where: str
    micro_batch: int
    largest: int
    accumulation: int
    kept_accumulation: int
    rows: int | None
    steps: int | None
    tokens: int | None
    tokens_counted: bool
    speed: Speed
    hours: float | None
    seconds_a_step: float
    flops_a_step: int


@dataclass(frozen=True)
class Subject:
    """What is planned.

    Attributes:
        recipe: the stage.
        config: of its model.
        processor: the model's, where it is there.
        promised: scenes of the manifests that are made before the stage runs.
        mapped: see :func:`gama.training.footprint.parts`.
    """

    recipe: Recipe
    config: GamaConfig
    processor: Any | None = None
    promised: Mapping[str, int] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()


def make_plan(subject: Subject, *, gpu: int | None = None, world: int = 1) -> Plan:
    """Plan a stage; takes seconds.

    Args:
        subject: the stage and its model.
        gpu: bytes of the GPU to fit; None for this machine's memory.
        world: processes that share the batch.
    """
    recipe, config = subject.recipe, subject.config
    micro = int(recipe.training.get("per_device_train_batch_size", _MICRO_BATCH))
    accumulation = int(recipe.training.get("gradient_accumulation_steps", 1))
    prefix = 0 if recipe.objective == "tagging" else config.num_audio_tokens
    lengths = row_lengths(recipe, subject.processor, prefix, subject.promised)
    mean, widest = lengths.padded(micro)
    mapped = frozenset() if gpu is not None or torch.cuda.is_available() else subject.mapped
    parts = tuple(footprint.parts(footprint.skeleton(config, recipe), recipe.quant, mapped))
    shapes = Shape(micro, mean, lengths.mean_targets), Shape(micro, widest, max(lengths.targets))
    held = _held(parts, recipe)
    at = {rows: _step(config, recipe, dataclasses.replace(shapes[1], rows=rows)) for rows in (1, 2)}
    if accumulation == 1:
        at = {rows: dataclasses.replace(step, peak=step.peak - held[1]) for rows, step in at.items()}
    program = _CUDA_CONTEXT if gpu is not None else calibration.resident() or _CUDA_CONTEXT
    available, where = (gpu, "the GPU asked for") if gpu is not None else _memory_here()
    flops = _line(at[1].flops, at[2].flops, micro)
    speed = calibration.calibrate(config, recipe, shapes, flops, sum(held), held[1] // FLOAT)
    counted = max(1, _line(at[1].peak, at[2].peak, micro))
    # a process on a CPU loses room between the blocks that it frees, which a step that was tried tells
    activations = counted if gpu is not None else max(counted, speed.grown - sum(held))
    memory = Memory(*held, activations, program, sum(part.mapped for part in parts))
    taken = memory.total - activations + memory.mapped
    largest = _largest(at, (available * _SPARE - taken) * counted / activations)
    seconds = accumulation * (speed.micro_batch + micro * (speed.item + lengths.seconds)) + speed.optimizer
    steps = _steps(recipe, lengths.rows, micro * world, accumulation)
    batch = micro * accumulation
    return Plan(
        name=recipe.name,
        parts=parts,
        memory=memory,
        available=available,
        where=where,
        micro_batch=micro,
        largest=largest,
        accumulation=accumulation,
        kept_accumulation=math.ceil(batch / min(largest, batch)) if largest else 0,
        rows=lengths.rows,
        steps=steps,
        tokens=None if steps is None else round(steps * batch * world * lengths.tokens),
        tokens_counted=lengths.sampled,
        speed=speed,
        hours=None if steps is None else steps * seconds / 3600,
        seconds_a_step=seconds,
        flops_a_step=flops * accumulation,
    )


def _step(config: GamaConfig, recipe: Recipe, shape: Shape) -> Step:
    """One training step of fake tensors, computed once for stages that take the same."""
    training = {key: recipe.training.get(key) for key in _COUNTS}
    data = Data(keep_frozen=recipe.data.keep_frozen)
    alike = dataclasses.replace(recipe, name="", starts_from={}, otherwise=None, data=data, training=training)
    key = yaml.safe_dump([config.to_json_string(), alike.resolved()])
    _subjects[key] = (config, alike)
    return _measured(key, shape, int(recipe.training.get("gradient_accumulation_steps", 1)) > 1)


_subjects: dict[str, tuple[GamaConfig, Recipe]] = {}


@lru_cache(maxsize=32)
def _measured(key: str, shape: Shape, accumulates: bool) -> Step:
    config, recipe = _subjects[key]
    plain = calibration.plain_attention(recipe)
    return footprint.measure(config, recipe, shape, plain_attention=plain, accumulates=accumulates)


def _line(one: int, two: int, rows: int) -> int:
    """What ``rows`` take where one and two rows take this much."""
    return one + (two - one) * (rows - 1)


def _held(parts: tuple[Part, ...], recipe: Recipe) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states."""
    learning = sum(part.trainable for part in parts)
    states = _STATES.get(str(recipe.training.get("optim", "")), 2 * FLOAT)
    return sum(part.weights for part in parts), FLOAT * learning, states * learning


def _largest(at: Mapping[int, Step], room: float) -> int:
    each = max(1, at[2].peak - at[1].peak)
    return min(_LARGEST, max(0, 1 + math.floor((room - at[1].peak) / each)))


def _steps(recipe: Recipe, rows: int | None, together: int, accumulation: int) -> int | None:
    """Optimizer steps, as transformers' Trainer counts them."""
    steps = int(recipe.training.get("max_steps", -1))
    if steps > 0:
        return steps
    if rows is None:
        return None
    batches = math.ceil(rows / together)
    return math.ceil(
        float(recipe.training.get("num_train_epochs", _EPOCHS)) * max(1, math.ceil(batches / accumulation))
    )


def _memory_here() -> tuple[int, str]:
    """The memory that training would use on this machine."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory, torch.cuda.get_device_name(0)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return (min(pages, int(text)) if text.isdigit() else pages), "this machine's memory"
