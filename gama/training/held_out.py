"""Which clips are kept out of training: drawn by the names of their files, so that they are the same in every run."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gama.data.dataset import ClipDataset, EpochDataset, Item
from gama.errors import RecipeError

_PIECES = 2**32


class Chosen(EpochDataset):
    """Some items of a dataset, by their index in it."""

    def __init__(self, whole: EpochDataset, indices: Sequence[int]) -> None:
        super().__init__(whole.seed)
        self.whole = whole
        self.indices = list(indices)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.whole.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Item:
        return self.whole[self.indices[index]]

    def audio(self, index: int) -> Path | None:
        """The clip of an item."""
        return self.whole.audio(self.indices[index])

    @property
    def lengths(self) -> np.ndarray | None:
        lengths = self.whole.lengths
        return None if lengths is None else lengths[self.indices]


def split(dataset: ClipDataset, share: float) -> tuple[Chosen, Chosen]:
    """Training and validation items: every clip with all its rows on one side, the same for the same names.

    Args:
        dataset: all of them.
        share: of the clips that are kept out, roughly; a clip is drawn by the name of its file alone.

    Raises:
        RecipeError: where one of the sides would be empty.
    """
    clips = [drawn(path.name, share) for path in dataset.store.paths]
    out = [clips[int(dataset.features[index])] for index in range(len(dataset))]
    sides = [[i for i, is_out in enumerate(out) if is_out == wanted] for wanted in (False, True)]
    if not all(sides):
        raise RecipeError(
            f"data.validation is {share:g}: of {len(dataset)} items {len(sides[1])} would be kept out",
            "give a share between them, or a manifest",
        )
    return Chosen(dataset, sides[0]), Chosen(still(dataset), sides[1])


def drawn(name: str, share: float) -> bool:
    """Whether a clip of that name is kept out."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) < share * _PIECES


def still(dataset: ClipDataset) -> ClipDataset:
    """The same items without augmentation, the same in every epoch."""
    alike = copy.copy(dataset)
    alike.augmentation, alike.epoch = 0.0, 0
    alike.set_epoch = lambda epoch: None  # type: ignore[method-assign]
    return alike
