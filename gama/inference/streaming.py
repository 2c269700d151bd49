"""Ids -> text as it grows. No torch."""

from __future__ import annotations

from typing import Any

_UNFINISHED = "\ufffd"


class TextStream:
    """Ids -> text as it grows, never splitting a character.

    Each id is decoded with the few before it that a decoder looks at, never with the whole answer: tokenizers write a
    word differently at the beginning of a text (LLaMA's leave its space out), so the difference of two decodings is
    what an id adds.

    Args:
        tokenizer: the language model's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._window: list[int] = []  # ids that were given out last, and those that were not
        self._given = 0  # how many of the window were given out
        self._before = ""  # their text, decoded by themselves
        self._pieces: list[str] = []

    def push(self, token: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        self._window.append(token)
        text = self._decoded(self._window)
        return "" if text.endswith(_UNFINISHED) else self._give(text)

    def finish(self) -> str:
        """What is left, unfinished characters as the replacement character."""
        return self._give(self._decoded(self._window)) if len(self._window) > self._given else ""

    def _give(self, text: str) -> str:
        pending = self._window[self._given :]
        # a run of bytes that breaks off can change how its beginning is written
        piece = text[len(self._before) :] if text.startswith(self._before) else self._decoded(pending)
        if piece:
            self._window, self._before = pending, self._decoded(pending)
            self._pieces.append(piece)
        self._given = len(self._window)
        return piece

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @property
    def text(self) -> str:
        """All that was given out so far."""
        return "".join(self._pieces)


__all__ = ["TextStream"]
