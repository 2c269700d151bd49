"""Keys and values in place: the same numbers as transformers' growing cache, and nothing copied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model import small
from transformers import DynamicCache

from gama.inference import steps
from gama.inference.decoding import decode
from gama.inference.sampling import Sampling
from gama.inference.steps import FixedStep, GraphSteps, PlainSteps, new_cache
from gama.model.key_values import CACHE, RoomyLayer

PROMPTS = [[1, 50, 51, 52, 53, 54], [1, 60], [1, 70, 71]]


@pytest.fixture(scope="module")
def model() -> Any:
    return small.model()


@torch.no_grad()
def read(model: Any, rows: list[list[int]], cache: Any) -> tuple[Any, torch.Tensor]:
    """Cache and mask after a prompt."""
    ids, mask = small.left_padded(rows)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return model(input_ids=ids, attention_mask=mask, position_ids=positions, **{CACHE: cache})[CACHE], mask


def keys(cache: Any) -> list[torch.Tensor]:
    return [layer.keys for layer in cache.layers]


def test_the_cache_holds_what_a_growing_one_holds(model: Any) -> None:
    caches = []
    for cache in (new_cache(model), DynamicCache()):
        held, mask = read(model, PROMPTS, cache)
        walk = PlainSteps(model, held, mask)
        with torch.no_grad():
            logits = [walk(torch.tensor([t, t + 1, t + 2]), [True, True, t != 6]) for t in range(5, 9)]
        caches.append((logits, keys(held)))
    for ours, theirs in zip(*caches, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_nothing_is_copied_within_the_room_and_all_of_it_beyond() -> None:
    layer = RoomyLayer()
    parts = [torch.randn(2, 3, length, 4) for length in (5, 1, 1, 260, 1)]
    places = []
    for part in parts:
        held, _ = layer.update(part, -part)
        places.append(held.data_ptr())
    assert places[0] == places[1] == places[2] != places[3] == places[4]
    torch.testing.assert_close(layer.keys, torch.cat(parts, dim=2))
    torch.testing.assert_close(layer.values, -torch.cat(parts, dim=2))


def test_cut_back_and_selected_rows_go_on() -> None:
    layer = RoomyLayer()
    first, second, third = (torch.randn(2, 3, n, 4) for n in (6, 2, 3))
    layer.update(first, first)
    layer.crop(-2)
    assert layer.get_seq_length() == 4
    layer.update(second, second)
    torch.testing.assert_close(layer.keys, torch.cat([first[:, :, :4], second], dim=2))
    layer.batch_select_indices(torch.tensor([1, 1, 0]))
    layer.update(third[[0, 1, 1]], third[[0, 1, 1]])
    torch.testing.assert_close(layer.keys[:, :, :4], first[[1, 1, 0], :, :4])
    torch.testing.assert_close(layer.keys[:, :, 6:], third[[0, 1, 1]])
    layer.reset()
    assert layer.get_seq_length() == 0
    layer.update(second, second)
    torch.testing.assert_close(layer.keys, second)


def test_a_language_model_that_slides_makes_its_own_cache() -> None:
    assert new_cache(small.model("qwen3")) is not None
    changed = small.model("qwen3")
    changed.config.text_config.layer_types = ["full_attention", "sliding_attention"]
    assert new_cache(changed) is None


@torch.inference_mode()
def test_a_step_at_fixed_addresses_says_the_same(model: Any) -> None:
    """What a CUDA graph records, without the recording."""
    (plain, mask), (fixed, _) = read(model, PROMPTS, new_cache(model)), read(model, PROMPTS, new_cache(model))
    before = [k.clone() for k in keys(fixed)]
    step = FixedStep(model, fixed, len(PROMPTS), room=16)
    for _ in range(2):  # a step is used for one prompt after the other
        ours, theirs = GraphSteps(step, fixed, mask), PlainSteps(model, plain, mask)
        for number in range(4):
            ids, growing = torch.tensor([7, 8, 9]) + number, [True, number < 2, True]
            torch.testing.assert_close(ours(ids, growing), theirs(ids, growing), rtol=1e-4, atol=1e-4)
        assert all(torch.equal(k, b) for k, b in zip(keys(fixed), before, strict=True))
        assert step.is_taken
        ours.close()
        assert not step.is_taken
        for one, other in zip(keys(fixed), keys(plain), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        for cache in (fixed, plain):
            cache.crop(-4)


@pytest.mark.gpu
def test_a_recorded_step_says_the_same() -> None:
    model = small.model().to("cuda")
    ids, mask = (t.to("cuda") for t in small.left_padded(PROMPTS))

    def said() -> list[list[int]]:
        given = {"input_ids": ids, "attention_mask": mask, CACHE: new_cache(model)}
        return [t.tolist() for t in decode(model, given, Sampling(20), [])]

    recorded = said()
    assert [step for step in steps._RECORDED[model].values() if step is not None]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "_WORTH", 1000)
        assert said() == recorded
    assert said() == recorded
