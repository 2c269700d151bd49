"""Rows of like length together, so that little of a batch is padding; the order is the seed's and the epoch's alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from gama.data.dataset import EpochDataset

_GROUP = 50
"""Batches that are sorted together, as in transformers' LengthGroupedSampler."""


class LengthGrouped(Sampler[int]):
    """A random order in which the rows of a batch are of like length.

    Rows are shuffled, cut into groups of fifty batches, and sorted by length within each; the longest batch comes
    first, so that a memory that is too small is known at once. A resumed run, and each of several processes, draws the
    same.

    Args:
        dataset: tells the epoch.
        lengths: of its items.
        batch: rows that are computed together, over all processes.
        seed: of the order.
    """

    def __init__(self, dataset: EpochDataset, lengths: Sequence[int], *, batch: int, seed: int) -> None:
        self.dataset = dataset
        self.lengths = np.asarray(lengths)
        self.batch = batch
        self.seed = seed

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(order(self.lengths, self.batch, np.random.default_rng([self.seed, self.dataset.epoch])))


def order(lengths: np.ndarray, batch: int, rng: np.random.Generator) -> list[int]:
    """A permutation of the rows: see :class:`LengthGrouped`."""
    shuffled = rng.permutation(len(lengths))
    size = batch * _GROUP
    groups = [shuffled[at : at + size] for at in range(0, len(shuffled), size)]
    rows = np.concatenate([group[np.argsort(-lengths[group], kind="stable")] for group in groups])
    batches = [rows[at : at + batch] for at in range(0, len(rows), batch)]
    whole, rest = [b for b in batches if len(b) == batch], [b for b in batches if len(b) < batch]
    longest = max(range(len(whole)), key=lambda i: int(lengths[whole[i][0]]), default=0)
    first = [whole.pop(longest)] if whole else []
    mixed = [whole[i] for i in rng.permutation(len(whole))]
    return [int(row) for part in (*first, *mixed, *rest) for row in part]
