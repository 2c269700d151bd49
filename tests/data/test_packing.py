"""Packed questions are computed as if each stood alone."""

from __future__ import annotations

import pytest
import torch
from model import small

from gama.data.packing import IGNORED, Example, PackedBatch, pack

CLIP = small.clip()
PREFIXES = [[*CLIP, 1], [*CLIP, *CLIP, 1]]
EXAMPLES = [
    [
        Example([40, 41, 42], [50, 51, 2], [1.0, 2.0, 0.5]),
        Example([43], [52, 2], [1.0, 1.0]),
        Example([44, 45], [53, 54, 55, 2], [1.0] * 4),
    ],
    [Example([46, 47], [56, 2], [3.0, 1.0])],
]


@pytest.fixture(scope="module")
def packed() -> PackedBatch:
    return pack(PREFIXES, EXAMPLES, pad_id=0)


@pytest.mark.parametrize("family", small.FAMILIES)
def test_packed_logits_equal_each_alone(family: str, packed: PackedBatch) -> None:
    model, fbank = small.model(family), small.fbanks(3)
    given = {"attention_mask": packed.attention_mask, "position_ids": packed.position_ids}
    with torch.no_grad():
        together = model(input_ids=packed.input_ids, audio_values=fbank, **given).logits
        for row, (prefix, examples, clips) in enumerate(zip(PREFIXES, EXAMPLES, fbank.split([1, 2]), strict=True)):
            at = len(prefix)
            for example in examples:
                ids = example.prompt + example.answer
                alone = model(input_ids=torch.tensor([prefix + ids]), audio_values=clips).logits[0, len(prefix) :]
                torch.testing.assert_close(together[row, at : at + len(ids)], alone, atol=1e-4, rtol=1e-4)
                at += len(ids)


def test_without_the_mask_neighbours_are_heard(packed: PackedBatch) -> None:
    """The comparison above can fail."""
    model, fbank = small.model("llama"), small.fbanks(3)
    with torch.no_grad():
        right, wrong = (
            model(input_ids=packed.input_ids, audio_values=fbank, position_ids=packed.position_ids, **mask).logits
            for mask in ({"attention_mask": packed.attention_mask}, {})
        )
    second = len(PREFIXES[0]) + 6
    assert not torch.allclose(right[0, second : second + 3], wrong[0, second : second + 3], atol=1e-2)


def test_padding_is_finite(packed: PackedBatch) -> None:
    model = small.model("llama")
    given = {"attention_mask": packed.attention_mask, "position_ids": packed.position_ids}
    assert torch.isfinite(model(input_ids=packed.input_ids, audio_values=small.fbanks(3), **given).logits).all()


def test_layout(packed: PackedBatch) -> None:
    start = len(PREFIXES[0])
    assert packed.input_ids.shape[1] % 8 == 0
    first = packed.input_ids[0].tolist()
    assert first[: start + 15] == [*PREFIXES[0], 40, 41, 42, 50, 51, 2, 43, 52, 2, 44, 45, 53, 54, 55, 2]
    assert set(first[start + 15 :]) <= {0}
    positions = packed.position_ids[0, start : start + 15].tolist()
    assert positions == [start + i for i in (*range(6), *range(3), *range(6))]


def test_answers_alone_are_targets(packed: PackedBatch) -> None:
    targets = packed.labels != IGNORED
    assert packed.labels[0][targets[0]].tolist() == [50, 51, 2, 52, 2, 53, 54, 55, 2]
    assert packed.weights[0][targets[0]].tolist() == [1.0, 2.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert not packed.weights[~targets].any()


def test_train_on_inputs_adds_the_questions() -> None:
    packed = pack(PREFIXES, EXAMPLES, pad_id=0, train_on_inputs=True)
    targets = packed.labels != IGNORED
    assert packed.labels[1][targets[1]].tolist() == [46, 47, 56, 2]
    assert packed.weights[1][targets[1]].tolist() == [1.0, 1.0, 3.0, 1.0]


@pytest.mark.parametrize("train_on_inputs", [False, True])
def test_first_target_is_predicted_from_its_own_question(train_on_inputs: bool) -> None:
    """The id before every target belongs to the same question, or the shift by one would cross a border."""
    packed = pack(PREFIXES, EXAMPLES, pad_id=0, train_on_inputs=train_on_inputs)
    mask = packed.attention_mask[:, 0]
    for row, column in (packed.labels != IGNORED).nonzero().tolist():
        assert mask[row, column, column - 1]
