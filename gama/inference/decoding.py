"""The decode loop: prefill once, then one token at a time from the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

if TYPE_CHECKING:
    from gama.model.gama import GamaForConditionalGeneration


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: most tokens of an answer.
        temperature: 0 takes the likeliest token every time.
        top_p: sample among the likeliest tokens that together hold this probability.
        seed: the same seed gives the same samples; None for chance.
    """

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@torch.inference_mode()
def decode(
    model: GamaForConditionalGeneration,
    inputs: dict[str, Any],
    sampling: Sampling,
    stop_ids: Sequence[int],
) -> Iterator[Tensor]:
    """Yield the next id of each row (B,), until every row has stopped or ``max_new_tokens`` are made.

    A row that has stopped yields its stop id on.

    Args:
        model: the model.
        inputs: ``input_ids``, ``attention_mask`` (B, T), padded on the left, and ``audio_features`` where there are
            clips.
        sampling: how to choose.
        stop_ids: ids that end an answer.
    """
    generator = torch.Generator(device=model.device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    warpers = _warpers(sampling)
    stops = torch.tensor(list(stop_ids), device=model.device)
    mask = inputs["attention_mask"]
    ids = inputs["input_ids"]
    step = {**inputs, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0), "use_cache": True, "logits_to_keep": 1}
    stopped = torch.zeros(len(ids), dtype=torch.bool, device=model.device)
    last = ids[:, -1]
    for _ in range(sampling.max_new_tokens):
        output = model(**step)
        scores = output.logits[:, -1].float()
        if sampling.temperature > 0:
            chances = warpers(ids, scores).softmax(-1)
            chosen = torch.multinomial(chances, 1, generator=generator).squeeze(1)
        else:
            chosen = scores.argmax(-1)
        last = torch.where(stopped, last, chosen)
        yield last
        stopped = stopped | torch.isin(last, stops)
        if bool(stopped.all()):
            return
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
        step = {
            "input_ids": last.unsqueeze(1),
            "attention_mask": mask,
            "position_ids": mask.sum(-1, keepdim=True) - 1,
            "past_key_values": output.past_key_values,
            "use_cache": True,
        }


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature > 0:
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1.0:
            warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers


class TextStream:
    """Ids -> text as it grows, never splitting a character.

    Args:
        tokenizer: the language model's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.shown = 0  # characters already given out

    def push(self, token: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        self.ids.append(token)
        text = self._text()
        if text.endswith("\ufffd"):
            return ""
        return self._give(text)

    def finish(self) -> str:
        """What is left, unfinished characters as the replacement character."""
        return self._give(self._text())

    def _give(self, text: str) -> str:
        piece, self.shown = text[self.shown :], max(self.shown, len(text))
        return piece

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
