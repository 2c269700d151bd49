"""What ``/set`` changes, and which model is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from gama.chat.conversation import MEMORIES, Memory
from gama.errors import PromptError
from gama.prompt import template_named
from gama.text import printable, shown


@dataclass(frozen=True)
class Model:
    """Which weights, how they are held and what computes; see :func:`gama.inference.opening.load`.

    Attributes:
        cache: folder of kept prefixes, ``cache_size`` its limit in bytes; None for no folder.
    """

    model: str | None = None
    quant: str = "none"
    device: str = "auto"
    dtype: str = "auto"
    runtime: str = "auto"
    frontend: str | None = None
    provider: str = "auto"
    threads: int | None = None
    cache: str | None = None
    cache_size: int = 2 * 10**9


@dataclass(frozen=True)
class Settings:
    """How questions are put.

    Attributes:
        memory: how much of the conversation goes with a question.
        max_new_tokens: most tokens of an answer.
        temperature: 0 takes the likeliest token every time.
        top_p: sample among the likeliest tokens that together hold this probability.
        top_k: sample among this many of the likeliest tokens; 0 for all.
        repetition_penalty: above 1, words that were read or said are less likely.
        seed: repeats the same samples; None for chance.
        template: name of a prompt template; None for the model's own.
    """

    memory: Memory = "none"
    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    template: str | None = None

    def sampling(self) -> dict[str, Any]:
        """What the model is told about how to choose."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "memory"}

    def changed(self, key: str, text: str) -> Settings:
        """With one value given as text; ``none`` takes away a seed or a template.

        Raises:
            PromptError: for an unknown key, or a value that it cannot have.
        """
        if key not in _READ:
            raise PromptError(f"there is no setting {printable(key)!r}", f"there are: {', '.join(_READ)}")
        expected, read = _READ[key]
        try:
            return replace(self, **{key: read(text)})
        except PromptError:  # which is a ValueError
            raise
        except ValueError:
            raise PromptError(f"{key} is {shown(printable(text))}, {expected} was expected") from None


def _number(fits: Callable[[float], bool]) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = float(text)
        if not (math.isfinite(number) and fits(number)):
            raise ValueError(text)
        return number

    return read


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not least <= number < 2**63:
            raise ValueError(text)
        return number

    return read


def _memory(text: str) -> Memory:
    for memory in MEMORIES:
        if memory == text:
            return memory
    raise ValueError(text)


def _template(text: str) -> str:
    template_named(text)
    return text


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else read(text)


_READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "memory": ("full, last or none", _memory),
    "max_new_tokens": ("a whole number from 1 on", _whole(1)),
    "temperature": ("a number from 0 on", _number(lambda n: n >= 0)),
    "top_p": ("a number above 0 and at most 1", _number(lambda n: 0 < n <= 1)),
    "top_k": ("a whole number from 0 on", _whole(0)),
    "repetition_penalty": ("a number above 0", _number(lambda n: n > 0)),
    "seed": ("a whole number from 0 on, or none", _or_none(_whole(0))),
    "template": ("the name of a template, or none", _or_none(_template)),
}

SETTINGS = tuple(_READ)

__all__ = ["SETTINGS", "Model", "Settings"]
