"""How the ids of an answer are chosen, and the settings of those who came before. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gama.errors import PromptError

PRESETS: dict[str, dict[str, Any]] = {
    # the original's gama_inf.py, by which its authors measured
    "gama-paper": {
        "max_new_tokens": 400,
        "temperature": 0.1,
        "top_p": 0.95,
        "top_k": 500,
        "repetition_penalty": 1.1,
    },
}
"""Named settings: fields of :class:`Sampling`."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; in the order and with the meaning of transformers' ``generate``.

    Attributes:
        max_new_tokens: most tokens of an answer.
        temperature: 0 takes the likeliest token every time.
        top_p: sample among the likeliest tokens that together hold this probability.
        top_k: sample among this many of the likeliest tokens; 0 for all.
        repetition_penalty: what the scores of tokens that were read or said are divided by (multiplied by, below 0);
            text counts, sound does not. 1 leaves them as they are.
        seed: the same seed gives the same samples; None for chance.

    Raises:
        PromptError: for a value out of range.
    """

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "more than 0 and at most 1")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 or more")
        _require(0 < self.repetition_penalty < math.inf, "repetition_penalty", self.repetition_penalty, "more than 0")


def _require(fits: bool, what: str, given: float, expected: str) -> None:
    if not fits:
        raise PromptError(f"{what} is {given}, {expected} was expected")


def preset(name: str) -> dict[str, Any]:
    """The settings of that name.

    Raises:
        PromptError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise PromptError(f"unknown preset {name!r}", f"known: {', '.join(sorted(PRESETS))}")
    return dict(PRESETS[name])


__all__ = ["PRESETS", "Sampling", "preset"]
