"""How many rows a stage reads and how long they are, from a sample of them: no clip is opened."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gama.data.collator import AnswerCollator
from gama.data.dataset import Item, Question, SymbolicScenes
from gama.data.manifest import Row, records, row_of
from gama.data.scenes.questions import ask
from gama.prompt import instruction
from gama.training.recipe import Recipe

SAMPLE = 128
"""Items that are looked at."""
_PADDED_TO = 8  # as gama.data.packing


@dataclass(frozen=True)
class RowLengths:
    """What a stage reads.

    Attributes:
        rows: items an epoch; None where that is not known.
        widths: tokens of the sampled items with their prefix, unpadded.
        targets: those of them that count in the loss.
        sampled: whether they were counted; otherwise they are what the cut-off lets through, which a question that is
            longer by itself exceeds.
        seconds: time to make one item without its features.
    """

    rows: int | None
    widths: tuple[int, ...]
    targets: tuple[int, ...]
    sampled: bool
    seconds: float

    def padded(self, batch: int) -> tuple[int, int]:
        """The mean and the largest width of a micro-batch, padded to its longest item."""
        draw = random.Random(0)
        batches = [max(draw.choices(self.widths, k=batch)) for _ in range(max(1, 4 * len(self.widths) // batch))]
        padded = [-(-width // _PADDED_TO) * _PADDED_TO for width in batches]
        return round(sum(padded) / len(padded)), max(padded)

    @property
    def mean_targets(self) -> int:
        """Targets of an item, on average."""
        return round(sum(self.targets) / len(self.targets))

    @property
    def tokens(self) -> float:
        """Mean tokens of an item."""
        return sum(self.widths) / len(self.widths)


def row_lengths(
    recipe: Recipe, processor: Any | None, prefix: int, promised: Mapping[str, int] | None = None
) -> RowLengths:
    """Rows and lengths of a stage.

    Args:
        recipe: the stage, paths of its manifests resolved.
        promised: scenes of the manifests that are made before it runs.
        processor: the model's, or None where it is not there yet.
        prefix: soft tokens of a clip.

    Raises:
        ManifestError: for a row that cannot be used.
    """
    begun = time.perf_counter()
    rows, items = _items(recipe, promised or {})
    if recipe.objective in ("tagging", "naming"):
        return RowLengths(rows, (prefix,), (0,), True, (time.perf_counter() - begun) / max(1, len(items)))
    if processor is None or not items:
        longest = recipe.data.cutoff * (recipe.data.questions if recipe.data.packing else 1)
        return RowLengths(rows, (prefix + longest,), (longest,), False, 0.0)
    collator = AnswerCollator(processor, transcripts=False, max_answer=recipe.data.cutoff - 1)
    begun = time.perf_counter()
    pairs = [_lengths(collator, item.questions) for item in items]
    widths = tuple(prefix + 1 + prompts + answers for prompts, answers in pairs)
    targets = tuple(answers + prompts * recipe.loss.train_on_inputs for prompts, answers in pairs)
    return RowLengths(rows, widths, targets, True, (time.perf_counter() - begun) / len(items))


def _lengths(collator: AnswerCollator, questions: Sequence[Question]) -> tuple[int, int]:
    """Tokens of all questions, and of all answers."""
    examples = [collator.example(question.instruction, question.output) for question in questions]
    return sum(len(e.prompt) for e in examples), sum(len(e.answer) for e in examples)


def _items(recipe: Recipe, promised: Mapping[str, int]) -> tuple[int | None, list[Item]]:
    data, seed = recipe.data, int(recipe.training.get("seed", 42))
    scenes = SymbolicScenes(max(SAMPLE, data.scenes), seed=seed, questions=data.questions, tasks=data.tasks)
    manifests = [Path(m) for m in data.manifests]
    there = [m for m in manifests if m.is_file()]
    if recipe.objective == "text":
        return data.scenes, [scenes[i] for i in range(SAMPLE)]
    if len(there) < len(manifests) or not manifests:
        if not manifests or any(not m.is_file() and str(m) not in promised for m in manifests):
            return None, []
        soon = sum(promised[str(m)] for m in manifests if not m.is_file())
        return soon + _groups(there, recipe)[0], [scenes[i] for i in range(SAMPLE)]
    count, groups = _groups(manifests, recipe)
    rng = np.random.default_rng(seed)
    return count, [Item(None, 0, group[0].scene, _questions(group, recipe, rng)) for group in groups]


def _groups(manifests: Sequence[Path], recipe: Recipe) -> tuple[int, list[list[Row]]]:
    """How many items there are, and some of them drawn evenly; neighbouring rows of one clip are an item."""
    draw, count = random.Random(0), 0
    kept: list[tuple[Path, list[tuple[int, Any]]]] = []
    for path in manifests:
        for group in _together(path, recipe):
            count += 1
            place = len(kept) if len(kept) < SAMPLE else draw.randrange(count)
            if place == len(kept):
                kept.append((path, group))
            elif place < SAMPLE:
                kept[place] = (path, group)
    return count, [[row_of(record, path, number) for number, record in group] for path, group in kept]


def _together(path: Path, recipe: Recipe) -> Iterator[list[tuple[int, Any]]]:
    """Neighbouring rows of one clip (each alone without packing), numbered from 1; other folds and no clip left out."""
    group: list[tuple[int, Any]] = []
    folds = recipe.data.folds
    for number, record in enumerate(records(path), 1):
        if not isinstance(record, dict):
            row_of(record, path, number)
        if record.get("audio_id") == "empty" or (folds is not None and record.get("fold") not in (None, *folds)):
            continue
        if group and (not recipe.data.packing or group[0][1].get("audio_id") != record.get("audio_id")):
            yield group
            group = []
        group.append((number, record))
    if group:
        yield group


def _questions(group: list[Row], recipe: Recipe, rng: np.random.Generator) -> tuple[Question, ...]:
    """As :class:`gama.data.dataset.ClipDataset` asks them."""
    data, scene = recipe.data, group[0].scene
    if recipe.objective in ("tagging", "naming"):
        return ()
    if scene is not None and data.packing:
        drawn = ask(scene, rng, data.questions, tasks=data.tasks)
        return tuple(Question(instruction(qa.instruction, silent=scene.silent), qa.output) for qa in drawn)
    chosen = rng.permutation(len(group))[: data.questions]
    return tuple(Question(instruction(group[i].instruction, input=group[i].input), group[i].output) for i in chosen)
