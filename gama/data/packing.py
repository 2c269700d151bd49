"""Several questions about one clip in one row: the prefix is computed once and every question attends to it.

A packed row is ``[prefix][question answer][question answer]…``; a question sees the prefix and itself, never its
neighbours, and its positions continue from the prefix. So each question is computed as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One question and answer as ids.

    Attributes:
        prompt: ids of the question, up to where the answer starts.
        answer: ids of the answer, end-of-sequence included.
        weights: how much each answer id counts in the loss.
    """

    prompt: list[int]
    answer: list[int]
    weights: list[float]


@dataclass(frozen=True)
class PackedBatch:
    """Rows of B prefixes with their questions, padded on the right to T.

    Attributes:
        input_ids: (B, T).
        labels: (B, T), -100 outside answers.
        weights: (B, T) loss weights of the labels.
        position_ids: (B, T).
        attention_mask: (B, 1, T, T) bool, True where a query (row) may attend to a key (column).
    """

    input_ids: Tensor
    labels: Tensor
    weights: Tensor
    position_ids: Tensor
    attention_mask: Tensor


def pack(
    prefixes: Sequence[Sequence[int]],
    examples: Sequence[Sequence[Example]],
    *,
    pad_id: int,
    train_on_inputs: bool = False,
) -> PackedBatch:
    """Pack each prefix with its examples.

    Args:
        prefixes: B lists of ids that all examples of the row share (placeholders or words, then <s>).
        examples: B lists of examples.
        pad_id: fills rows on the right.
        train_on_inputs: whether the question's ids are targets too, as in the released scripts; of the second and
            later questions of a row all but the first id.
    """
    asked = [sum(len(e.prompt) + len(e.answer) for e in es) for es in examples]
    lengths = [len(prefix) + length for prefix, length in zip(prefixes, asked, strict=True)]
    rows, width = len(prefixes), -(-max(lengths) // 8) * 8
    ids = torch.full((rows, width), pad_id)
    labels = torch.full((rows, width), IGNORED)
    weights = torch.zeros(rows, width)
    positions = torch.zeros(rows, width, dtype=torch.long)
    segment = torch.full((rows, width), -1)
    for row, (prefix, parts) in enumerate(zip(prefixes, examples, strict=True)):
        at = len(prefix)
        ids[row, :at] = torch.tensor(list(prefix))
        positions[row, :at] = torch.arange(at)
        segment[row, :at] = 0
        for number, part in enumerate(parts, 1):
            both = part.prompt + part.answer
            end = at + len(both)
            ids[row, at:end] = torch.tensor(both)
            positions[row, at:end] = torch.arange(len(prefix), len(prefix) + len(both))
            segment[row, at:end] = number
            # the id before a later question belongs to another answer, which its first id does not follow
            first = at + (number > 1) if train_on_inputs else at + len(part.prompt)
            labels[row, first:end] = ids[row, first:end]
            weights[row, first:end] = 1.0
            weights[row, at + len(part.prompt) : end] = torch.tensor(part.weights)
            at = end
    return PackedBatch(ids, labels, weights, positions, _mask(segment))


def _mask(segment: Tensor) -> Tensor:
    """(B, T) segment numbers -> (B, 1, T, T): causal, own segment or prefix; padding sees itself alone."""
    length = segment.shape[1]
    query, key = segment.unsqueeze(2), segment.unsqueeze(1)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = causal & ((query == key) | (key == 0)) & (key >= 0) & (query >= 0)
    return (allowed | torch.eye(length, dtype=torch.bool)).unsqueeze(1)
