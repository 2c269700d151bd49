"""How ids are chosen: transformers' own processors, presets, and rows that are drawn as they would be alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from model import small
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper

from gama.errors import PromptError
from gama.inference.decoding import decode
from gama.inference.hearing import asking
from gama.inference.sampling import PRESETS, Sampling
from gama.inference.steps import new_cache
from gama.instant.language import penalised, probabilities
from gama.model.key_values import CACHE

CLIPS = [1, 2, 0, 1]  # of small.ROWS
FBANK = small.fbanks(sum(CLIPS))


@pytest.fixture(scope="module")
def model() -> Any:
    return small.model()


def inputs(model: Any, rows: list[int]) -> dict[str, Any]:
    """Some of the small rows, as the engine gives them to the loop."""
    ids, mask = small.left_padded([small.ROWS[row] for row in rows])
    given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, CACHE: new_cache(model)}
    parts = FBANK.split(CLIPS)
    if clips := [parts[row] for row in rows if CLIPS[row]]:
        with torch.no_grad():
            given["audio_features"] = model.get_audio_features(torch.cat(clips)).pooler_output
    return given


def said(model: Any, rows: list[int], count: int = 8, **options: Any) -> list[list[int]]:
    """The ids of each row."""
    steps = [t.tolist() for t in decode(model, inputs(model, rows), Sampling(count, **options), [])]
    return [list(row) for row in zip(*steps, strict=True)]


@pytest.mark.parametrize("penalty", [1.0, 1.3, 1.7, 0.6])
def test_greedy_ids_are_those_of_generate(model: Any, penalty: float) -> None:
    every = list(range(4))
    expected = small.generate(model, small.ROWS, FBANK, repetition_penalty=penalty).tolist()
    assert said(model, every, repetition_penalty=penalty) == expected
    if penalty > 1:
        assert expected != said(model, every)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.8, "top_k": 50, "repetition_penalty": 1.4},
    ],
)
def test_a_row_of_a_batch_is_drawn_as_it_would_be_alone(model: Any, options: dict[str, Any]) -> None:
    together = said(model, [0, 1, 2, 3], seed=3, **options)
    assert together == [said(model, [row], seed=3, **options)[0] for row in range(4)]
    assert together != said(model, [0, 1, 2, 3], seed=4, **options)


def test_what_was_told_counts_where_the_loop_reads_the_rest_alone(model: Any) -> None:
    """A conversation goes on from a cache: the penalty still sees the whole prompt."""
    row = small.ROWS[0]
    options = {"repetition_penalty": 1.7}
    given = inputs(model, [0])
    begin = {**given, "input_ids": given["input_ids"][:, :-2], "attention_mask": given["attention_mask"][:, :-2]}
    with torch.no_grad():
        cache = model(**begin, use_cache=True)[CACHE]
    rest = {
        "input_ids": given["input_ids"][:, -2:],
        "attention_mask": given["attention_mask"],
        CACHE: cache,
    }
    continued = [int(t) for t in decode(model, rest, Sampling(8, **options), [], told=[row])]
    assert continued == said(model, [0], **options)[0]


class Fixed:
    """Gives the same scores at every step."""

    device, config = torch.device("cpu"), SimpleNamespace(audio_token_id=6)

    def __call__(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.tensor([[[0.1, 3.0, 2.0, 1.0, -5.0, 2.5]]]), **{CACHE: None})


def test_top_k_leaves_the_likeliest() -> None:
    def drawn(**options: Any) -> set[int]:
        one = torch.ones(1, 1, dtype=torch.long)
        sampling = Sampling(60, temperature=5.0, seed=0, **options)
        return {int(t) for t in decode(Fixed(), {"input_ids": one, "attention_mask": one}, sampling, [])}  # type: ignore[arg-type]

    assert drawn(top_k=1) == {1} and drawn(top_k=3) == {1, 2, 5} and len(drawn()) > 3


# --- numpy's side: the instant engine


@pytest.mark.parametrize("penalty", [1.1, 2.0, 0.5])
def test_the_penalty_of_the_instant_engine_is_that_of_transformers(penalty: float) -> None:
    scores = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    known = [3, 7, 7, 39, 0]
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([known]), torch.from_numpy(scores[None].copy()))
    np.testing.assert_allclose(penalised(scores, known, penalty), expected[0].numpy(), rtol=1e-6)
    assert penalised(scores, [], penalty).tolist() == scores.tolist()


@pytest.mark.parametrize("top_k", [1, 3, 40, 100])
def test_top_k_of_the_instant_engine_is_that_of_transformers(top_k: int) -> None:
    scores = np.random.default_rng(1).standard_normal(40).astype(np.float32).round(1)  # with ties
    expected = TopKLogitsWarper(top_k)(None, torch.from_numpy(scores[None])).softmax(-1)[0].numpy()
    np.testing.assert_allclose(probabilities(scores, Sampling(temperature=1.0, top_k=top_k)), expected, atol=1e-6)


# --- settings


def test_the_papers_settings() -> None:
    assert asking(preset="gama-paper").sampling == Sampling(400, 0.1, 0.95, 500, 1.1)
    changed = asking(preset="gama-paper", temperature=0.0, template="plain")
    assert (changed.sampling.temperature, changed.sampling.top_k, changed.template) == (0.0, 500, "plain")
    assert asking(preset=None).sampling == asking().sampling == Sampling()
    with pytest.raises(PromptError, match=r"unknown preset 'paper' \(known: gama-paper\)"):
        asking(preset="paper")
    assert all(Sampling(**settings) for settings in PRESETS.values())


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"repetition_penalty": 0.0}, {"repetition_penalty": float("inf")}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=f"^{next(iter(wrong))} is "):
        Sampling(**wrong)
