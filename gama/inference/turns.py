"""A conversation as the model is told it, and what it says. No torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gama.audio import Waveform

Finish = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True)
class Spoken:
    """One turn, with the sound that stands in front of its words.

    Attributes:
        role: who speaks.
        text: the words.
        windows: waveforms of at most 10.24 s, in reading order.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    windows: tuple[Waveform, ...] = ()


@dataclass(frozen=True)
class Said:
    """One answer of the model, with what it cost.

    Attributes:
        text: the words.
        finish: ``stop`` where it ended by itself, ``length`` where it was cut, ``interrupted`` where it was stopped.
        prompt_tokens, audio_tokens: ids of the prompt, and those of them that stand for sound.
        reused_tokens: ids of the prompt that were not computed anew.
        new_tokens: ids written.
        encode_s, first_token_s, total_s: seconds until the sound was heard, the first id and the end.
    """

    text: str
    finish: Finish
    prompt_tokens: int
    audio_tokens: int
    reused_tokens: int
    new_tokens: int
    encode_s: float
    first_token_s: float
    total_s: float


def never() -> bool:
    """Nobody asks for a stop."""
    return False


class Voice(Protocol):
    """What a conversation needs of a model."""

    @property
    def name(self) -> str:
        """The model, as it was asked for."""

    @property
    def quantization(self) -> str:
        """``none``, ``8bit`` or ``4bit``."""

    @property
    def device(self) -> str:
        """Where it computes."""

    @property
    def context(self) -> int:
        """Tokens that prompt and answer can have together."""

    @property
    def kept(self) -> int:
        """Positions whose keys and values are held."""

    def measure(self, turns: Sequence[Spoken], template: str | None = None) -> int:
        """Tokens of a prompt; nothing is heard for it."""

    def say(
        self, turns: Sequence[Spoken], *, stopped: Callable[[], bool] = never, **options: Any
    ) -> Generator[str, None, Said]:
        """Yield the answer to the last turn in pieces; ``stopped`` is asked before every token."""

    def forget(self) -> None:
        """Let go of every key and value."""


__all__ = ["Finish", "Said", "Spoken", "Voice", "never"]
