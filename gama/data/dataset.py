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
from gama.data.manifest import Row
from gama.data.row_index import ClipPaths, RowIndex
from gama.data.scenes.questions import ask
from gama.data.scenes.scene import Scene
from gama.data.scenes.symbolic import random_scene
from gama.data.shards import ShardStore
from gama.errors import AudioError, ManifestError
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

    def audio(self, index: int) -> Path | None:
        """The clip of an item."""
        return None

    @property
    def lengths(self) -> np.ndarray | None:
        """How long each item's text is, in any unit; None where that is drawn anew every time."""
        return None

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

    Rows stay on the disk: an item's are read when it is asked for, so that millions of them need little memory.

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

    Attributes:
        empty_answers: indices of the rows that would teach to answer nothing; ``rows.where`` tells where they stand.

    Raises:
        ManifestError: for a row that cannot be used or asks nothing, or where no clip is left.
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
        self.rows = RowIndex(manifests, lambda row: folds is None or row.fold in (None, *folds))
        self.order, self.starts = self.rows.grouped(together=packing)
        if not len(self):
            raise ManifestError(
                f"no clip is left of {', '.join(map(str, manifests))}", "check data.manifests and folds"
            )
        firsts = self.order[self.starts[:-1]]
        if truth and not self.rows.truth[firsts].all():
            unknown = self.rows[int(firsts[self.rows.truth[firsts].argmin()])].audio
            raise ManifestError(
                f"{unknown}: its row carries no 'events'", "this objective learns from exact truth alone"
            )
        self.questions = questions
        self.packing = packing
        self.tasks = tasks
        self.augmentation = augmentation
        self.empty_answers = self._asked_as_they_stand(self.rows.empty_answers)
        if empty := self._asked_as_they_stand(self.rows.empty_questions):
            count = f"{len(empty)} row(s) have an empty question"
            raise ManifestError(
                f"{count}: {self.rows.where(empty)}", "gama prepare check MANIFEST --out CLEAN leaves them out"
            )
        self.store = ShardStore(ClipPaths(self.rows), features, workers=workers, progress=progress)
        self.features: np.ndarray = self.rows.clip[firsts]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def _asked_as_they_stand(self, indices: Sequence[int]) -> list[int]:
        """Those of some rows whose own question is asked, and not one drawn from the truth about their clip."""
        if not self.questions:
            return []
        drawn = self.rows.truth if self.packing else np.zeros(len(self.rows), np.bool_)
        return [int(index) for index in indices if not drawn[index]]

    def audio(self, index: int) -> Path | None:
        return self.store.paths[int(self.features[index])]

    @property
    def lengths(self) -> np.ndarray | None:
        """Bytes of each row in its manifest, where every row is an item."""
        return None if self.packing else self.rows.sizes[self.order]

    def rows_of(self, index: int) -> list[Row]:
        """The rows of an item."""
        return [self.rows[int(number)] for number in self._numbers(index)]

    def _numbers(self, index: int) -> np.ndarray:
        return self.order[self.starts[index] : self.starts[index + 1]]

    def __getitem__(self, index: int) -> Item:
        rng = self.rng(index)
        numbers = self._numbers(index)
        first = int(numbers[0])
        clip = int(self.features[index])
        frames = int(self.store.frames[clip])
        fbank = torch.from_numpy(self._features(clip)).float()
        if self.augmentation > 0 and rng.random() < self.augmentation:
            fbank = augment.equalise(fbank, frames, rng)
            fbank = augment.mask_bands(fbank, frames, rng)
        scene = self.rows[first].scene if self.rows.truth[first] else None
        questions = self._questions(numbers, scene, rng)
        return Item(fbank, frames, scene, questions, int(rng.integers(2**32)))

    def _features(self, clip: int) -> np.ndarray:
        try:
            return self.store[clip]
        except OSError as error:
            raise AudioError(
                f"{self.store.paths[clip]}: its features are gone: {error.strerror or error}",
                "put the folder of features back, or let gama prepare features make it anew",
            ) from error

    def _questions(self, numbers: np.ndarray, scene: Scene | None, rng: np.random.Generator) -> tuple[Question, ...]:
        if scene is not None and self.packing:
            return _asked(scene, rng, self.questions, self.tasks)
        chosen = [self.rows[int(number)] for number in rng.permutation(numbers)[: self.questions]]
        return tuple(Question(instruction(row.instruction, input=row.input), row.output) for row in chosen)


def _asked(scene: Scene, rng: np.random.Generator, count: int, tasks: Sequence[str] | None) -> tuple[Question, ...]:
    if count == 0:
        return ()
    asked = ask(scene, rng, count, tasks=tasks)
    if scene.silent:  # as the engine tells the model
        return tuple(Question(instruction(qa.instruction, silent=True), qa.output) for qa in asked)
    return tuple(Question(qa.instruction, qa.output) for qa in asked)
