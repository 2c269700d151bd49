"""The decode loop by a scripted model: what it is shown at each step, when rows end, how tokens are drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import gama
from gama.checkpoints.bundled import model_folder
from gama.errors import PromptError
from gama.inference.decoding import Sampling, TextStream, decode
from gama.model.key_values import CACHE

STOP, VOCABULARY = 9, 10
TEXTS = [
    "a dog barks, then bells ring.",
    "naïve café: 日本語 🐕‍🦺 «ok»",
    "two lines\nand\ttabs  with  spaces ",
    "\u00e9\u0301\u200b\U0001f600",
]


class Scripted:
    """Says the next id of each row's script, by logits; remembers what it was given."""

    device = torch.device("cpu")
    config = SimpleNamespace(audio_token_id=VOCABULARY)  # beyond the vocabulary

    def __init__(self, *scripts: list[int]) -> None:
        self.scripts = scripts
        self.steps: list[dict[str, Any]] = []

    def __call__(self, **step: Any) -> SimpleNamespace:
        made = len(self.steps)
        self.steps.append(step)
        logits = torch.zeros(len(self.scripts), 1, VOCABULARY)
        for row, script in enumerate(self.scripts):
            logits[row, 0, script[made]] = 5.0
        return SimpleNamespace(logits=logits, **{CACHE: f"cache {made}"})


class Fixed(Scripted):
    """Gives the same logits at every step."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def __call__(self, **step: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits.expand(1, 1, -1), **{CACHE: None})


def prompts(*rows: list[int]) -> dict[str, Any]:
    """Rows padded on the left."""
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
    }


def said(model: Any, inputs: dict[str, Any], sampling: Sampling, **options: Any) -> list[list[int]]:
    return [tokens.tolist() for tokens in decode(model, inputs, sampling, [STOP], **options)]


def draws(logits: Tensor, count: int = 200, **options: Any) -> list[int]:
    sampling = Sampling(max_new_tokens=count, **options)
    return [row[0] for row in said(Fixed(logits), prompts([1]), sampling)]


def test_a_row_that_stopped_stays_so_until_all_have() -> None:
    model = Scripted([4, STOP, 7, 7], [5, 6, 7, STOP])
    assert said(model, prompts([1, 2], [3]), Sampling(10)) == [[4, 5], [STOP, 6], [STOP, 7], [STOP, STOP]]
    assert len(model.steps) == 4


def test_no_step_beyond_the_last_token() -> None:
    model = Scripted([4, 5, 6])
    assert said(model, prompts([1]), Sampling(2)) == [[4], [5]]
    assert len(model.steps) == 2


def test_the_prompt_is_read_once_and_then_one_id_at_a_time() -> None:
    model = Scripted([4, 5, 6], [7, 8, STOP])
    inputs = {**prompts([1, 2, 3], [3]), "audio_features": torch.ones(1)}
    said(model, inputs, Sampling(3))
    first, second, third = model.steps
    assert first["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert "audio_features" in first and CACHE not in first
    assert second["input_ids"].tolist() == [[4], [7]] and third["input_ids"].tolist() == [[5], [8]]
    assert [step[CACHE] for step in (second, third)] == ["cache 0", "cache 1"]
    assert second["position_ids"].tolist() == [[3], [1]] and third["position_ids"].tolist() == [[4], [2]]
    assert second["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert not {"audio_features", "audio_values"} & (set(second) | set(third))


def test_rows_end_at_their_own_limit_and_grow_no_further() -> None:
    model = Scripted([4, 5, 6, 7], [4, 5, 6, 7])
    tokens = said(model, prompts([1], [1]), Sampling(4), limits=[4, 2])
    assert [row[0] for row in tokens] == [4, 5, 6, 7]
    assert [row[1] for row in tokens] == [4, 5, 5, 5]
    assert [step["position_ids"].tolist() for step in model.steps[1:]] == [[[1], [1]], [[2], [1]], [[3], [1]]]


def test_greedy_is_the_largest() -> None:
    logits = torch.zeros(VOCABULARY)
    logits[6] = 0.01
    assert set(draws(logits, 5)) == {6}


def test_a_seed_repeats_the_draws_and_another_does_not() -> None:
    flat = torch.zeros(VOCABULARY)
    flat[STOP] = -torch.inf
    assert draws(flat, temperature=1.0, seed=1) == draws(flat, temperature=1.0, seed=1)
    assert draws(flat, temperature=1.0, seed=1) != draws(flat, temperature=1.0, seed=2)
    assert draws(flat, temperature=1.0) != draws(flat, temperature=1.0)


def test_a_seed_leaves_the_generator_of_torch_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    draws(torch.linspace(0.0, 0.1, VOCABULARY), 5, temperature=1.0, seed=1)
    assert torch.rand(1) == expected


def test_temperature_sharpens_and_flattens() -> None:
    logits = torch.full((VOCABULARY,), -torch.inf)
    logits[4], logits[5] = 1.0, 0.0
    shares = [draws(logits, 2000, temperature=t, seed=0).count(4) / 2000 for t in (0.5, 1.0, 5.0)]
    expected = [1 / (1 + 2.718281828 ** (-1 / t)) for t in (0.5, 1.0, 5.0)]
    assert shares == pytest.approx(expected, abs=0.04)  # 3.5 standard deviations of 2000 draws


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-44])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = torch.linspace(-30.0, 40.0, VOCABULARY).roll(3)
    assert set(draws(logits, 5, temperature=temperature, seed=0)) == {2}


def test_top_p_cuts_the_tail() -> None:
    logits = torch.tensor([0.5, 0.3, 0.1, 0.1]).log()
    assert set(draws(logits, temperature=1.0, top_p=0.7, seed=0)) == {0, 1}
    assert set(draws(logits, temperature=1.0, top_p=1.0, seed=0)) == {0, 1, 2, 3}
    assert set(draws(logits, temperature=1.0, top_p=1e-6, seed=0)) == {0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.5},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=f"^{next(iter(wrong))} is "):
        Sampling(**wrong)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return gama.GamaProcessor.from_pretrained(model_folder()).tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_streamed_text_is_the_whole_and_splits_no_character(text: str, tokenizer: Any) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == text == stream.text
    assert "\ufffd" not in "".join(pieces)
    assert len(ids) > 1 and sum(map(bool, pieces)) > 1 or len(text) < 6
    assert stream.finish() == ""


def test_an_unfinished_character_is_held_back_until_the_end(tokenizer: Any) -> None:
    ids = tokenizer("ok 🐕", add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer)
    shown = "".join(stream.push(token) for token in ids[:-1])
    assert shown == "ok " and "\ufffd" in stream.finish()


def test_the_placeholder_is_never_an_answer() -> None:
    model = Fixed(torch.tensor([0.0, 9.0, 5.0, 1.0]))
    model.config = SimpleNamespace(audio_token_id=1)
    tokens = [int(t) for t in decode(model, prompts([1]), Sampling(max_new_tokens=3), [STOP])]  # type: ignore[arg-type]
    assert tokens == [2, 2, 2]


def test_a_whole_number_is_a_temperature() -> None:
    drawn = list(
        decode(Fixed(torch.tensor([0.0, 0.1, 0.2, 0.1])), prompts([1]), Sampling(2, temperature=1, seed=0), [STOP])
    )  # type: ignore[arg-type]
    assert len(drawn) == 2
