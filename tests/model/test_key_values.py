"""The KV cache has two names across transformers' releases, and both are taken."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from model import small
from model.small import CLIP, WORDS
from transformers import DynamicCache

from gama.model.gama import GamaForConditionalGeneration
from gama.model.key_values import CACHE, CACHE_NAMES, take_cache

TAIL = [61, 62, 63]


@pytest.fixture(scope="module")
def llama() -> GamaForConditionalGeneration:
    return small.model("llama")


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_forward_goes_on_from_a_cache_under_either_name(name: str, llama: GamaForConditionalGeneration) -> None:
    fbank = small.fbanks(1)
    whole = small.logits(llama, CLIP + WORDS + TAIL, audio_values=fbank)
    cache = DynamicCache()
    old = name != CACHE and CACHE == "cache"  # transformers' own models warn of it too
    with torch.no_grad(), pytest.warns(FutureWarning, match="deprecated") if old else nullcontext():
        given: dict[str, Any] = {name: cache}
        first = llama(input_ids=torch.tensor([CLIP + WORDS]), audio_values=fbank, use_cache=True, **given)
        assert first[CACHE] is cache
        rest = llama(input_ids=torch.tensor([TAIL]), **given).logits
    torch.testing.assert_close(rest, whole[:, -len(TAIL) :])


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_generate_goes_on_from_a_cache_under_either_name(name: str, llama: GamaForConditionalGeneration) -> None:
    """A second turn over the cache of the first: the clip is not encoded again."""
    fbank, settings = small.fbanks(1), {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    settings["pad_token_id"] = 0
    ids = torch.tensor([CLIP + WORDS])
    first = llama.generate(input_ids=ids, audio_values=fbank, return_dict_in_generate=True, **settings)
    second = torch.cat([first.sequences, torch.tensor([TAIL])], dim=1)
    want = llama.generate(input_ids=second, audio_values=fbank, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = llama.generate(input_ids=second, **{name: first[CACHE]}, **settings)
    assert torch.equal(got, want)


def test_two_caches_are_refused(llama: GamaForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="two names of one argument"):
        llama(input_ids=torch.tensor([WORDS]), cache=DynamicCache(), past_key_values=DynamicCache())
    arguments: dict[str, Any] = {"cache": None, "past_key_values": "one", "other": 1}
    assert take_cache(arguments) == "one"
    assert arguments == {"other": 1}
