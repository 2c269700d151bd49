"""What a training step reads: one item a clip (or a symbolic scene), with its questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gama.data import augment
from gama.data.features import FbankStore
from gama.data.manifest import Row, by_clip, read
from gama.data.scenes.questions import ask
from gama.data.scenes.scene import Scene
from gama.data.scenes.symbolic import random_scene
from gama.errors import ManifestError
from gama.prompt import instruction


@dataclass(frozen=True)
class Question:
    """A question and its answer, as text."""

    instruction: str
    output: str


@dataclass(frozen=True)
class Item:
    """One clip ready for a batch.

    Attributes:
        fbank: (1024, 128) float32 normalised, or None for a scene without sound.
        frames: true frames of the fbank.
        scene: exact truth, where it is known.
        questions: what is asked about it.
        chance: seed of what a collator does with it; the same for the same (seed, epoch, index).
    """

    fbank: Tensor | None
    frames: int
    scene: Scene | None
    questions: tuple[Question, ...]
    chance: int = 0


class EpochDataset(Dataset[Item]):
    """A dataset whose chance depends on (seed, epoch, index) alone, so that a resumed run sees the same items."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the beginning of an epoch."""
        self.epoch = epoch

    def rng(self, index: int) -> np.random.Generator:
        """The source of chance of one item."""
        return np.random.default_rng([self.seed, self.epoch, index])


class SymbolicScenes(EpochDataset):
    """Random scenes without sound: what the language model is first trained on."""

    def __init__(self, size: int, *, seed: int, questions: int, tasks: Sequence[str] | None) -> None:
        super().__init__(seed)
        self.size = size
        self.questions = questions
        self.tasks = tasks

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Item:
        rng = self.rng(index)
        scene = random_scene(rng)
        return Item(None, 0, scene, _asked(scene, rng, self.questions, self.tasks))


class ClipDataset(EpochDataset):
    """Clips of one or several manifests with their features.

    Args:
        manifests: files to read.
        features: folder of the feature cache.
        seed: of questions and augmentation.
        questions: questions a clip; drawn from its truth where there is one, else from its rows.
        packing: whether all rows of a clip are one item; otherwise each row is one, asked as it stands.
        tasks: kinds of question to draw.
        folds: recordings of other folds are left out; those without a fold stay. Rows without a clip are left out.
        augmentation: 0 for none; 1 for the whole strength. Levels stay true.
        workers: processes that compute missing features.
        truth: whether every clip must carry its exact truth (``events``).
        progress: called with how many features were computed since its last call.

    Raises:
        ManifestError: for a row that cannot be used, or where no clip is left.
        AudioError: for a clip that is not there or cannot be read.
    """

    def __init__(
        self,
        manifests: Sequence[Path],
        features: Path,
        *,
        seed: int,
        questions: int,
        tasks: Sequence[str] | None = None,
        folds: Sequence[int] | None = None,
        augmentation: float = 0.0,
        workers: int = 1,
        truth: bool = False,
        packing: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(seed)
        rows = [read(path) for path in manifests]
        groups = [g for part in rows for g in (by_clip(part) if packing else [[row] for row in part])]
        paths = list(dict.fromkeys(g[0].audio for g in groups if g[0].audio is not None))
        kept = [g for g in groups if g[0].audio is not None and (folds is None or g[0].fold in (None, *folds))]
        if not kept:
            raise ManifestError(
                f"no clip is left of {', '.join(map(str, manifests))}", "check data.manifests and folds"
            )
        unknown = next((g[0].audio for g in kept if g[0].scene is None), None)
        if truth and unknown is not None:
            raise ManifestError(
                f"{unknown}: its row carries no 'events'", "this objective learns from exact truth alone"
            )
        self.clips: list[list[Row]] = kept
        self.questions = questions
        self.packing = packing
        self.tasks = tasks
        self.augmentation = augmentation
        self.store = FbankStore(paths, features, workers=workers, progress=progress)
        position = {path: index for index, path in enumerate(paths)}
        self.features = [position[g[0].audio] for g in kept if g[0].audio is not None]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Item:
        rng = self.rng(index)
        rows = self.clips[index]
        frames = int(self.store.frames[self.features[index]])
        fbank = torch.from_numpy(self.store[self.features[index]].astype(np.float32))
        if self.augmentation > 0 and rng.random() < self.augmentation:
            fbank = augment.equalise(fbank, frames, rng)
            fbank = augment.mask_bands(fbank, frames, rng)
        scene = rows[0].scene
        questions = self._questions(rows, scene, rng)
        return Item(fbank, frames, scene, questions, int(rng.integers(2**32)))

    def _questions(self, rows: list[Row], scene: Scene | None, rng: np.random.Generator) -> tuple[Question, ...]:
        if scene is not None and self.packing:
            return _asked(scene, rng, self.questions, self.tasks)
        chosen = rng.permutation(len(rows))[: self.questions]
        return tuple(Question(instruction(rows[i].instruction, input=rows[i].input), rows[i].output) for i in chosen)


def _asked(scene: Scene, rng: np.random.Generator, count: int, tasks: Sequence[str] | None) -> tuple[Question, ...]:
    if count == 0:
        return ()
    asked = ask(scene, rng, count, tasks=tasks)
    if scene.silent:  # as the engine tells the model
        return tuple(Question(instruction(qa.instruction, silent=True), qa.output) for qa in asked)
    return tuple(Question(qa.instruction, qa.output) for qa in asked)
