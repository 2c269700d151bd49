"""A voice that says what it was told, word by word; and ``gama chat`` with it, as a process: ``python stub.py …``.

A question that holds the word ``slowly`` is answered in a hundred words, 50 ms each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from gama.chat.settings import Model
from gama.errors import CheckpointError
from gama.inference.turns import Finish, Said, Spoken, never
from gama.prompt import instruction

CLIP_TOKENS = 96


class Stub:
    """A :class:`gama.inference.turns.Voice` without a model.

    Attributes:
        told: the turns of every question so far.
        options: how each of them was to be sampled.
    """

    def __init__(self, model: Model | None = None, *, context: int = 1024) -> None:
        self.model = model or Model()
        self.context = context
        self.told: list[list[Spoken]] = []
        self.options: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return self.model.model or "mini"

    @property
    def quantization(self) -> str:
        return self.model.quant

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def kept(self) -> int:
        return 0

    def measure(self, turns: Sequence[Spoken], template: str | None = None) -> int:
        """A token a word."""
        return sum(len(turn.text.split()) + CLIP_TOKENS * len(turn.windows) for turn in turns)

    def say(
        self, turns: Sequence[Spoken], *, stopped: Callable[[], bool] = never, **options: Any
    ) -> Generator[str, None, Said]:
        self.told.append(list(turns))
        self.options.append(options)
        question = instruction(turns[-1].text)
        slowly = "slowly" in question
        words = [f"word{n}" for n in range(100)] if slowly else ["I", "heard:", *question.split()]
        words, cut = words[: options["max_new_tokens"]], len(words) > options["max_new_tokens"]
        said: list[str] = []
        finish: Finish = "interrupted" if stopped() else "length" if cut else "stop"
        for word in () if finish == "interrupted" else words:
            time.sleep(0.05 if slowly else 0.0)
            said.append(word if not said else f" {word}")
            yield said[-1]
            if stopped():
                finish = "interrupted"
                break
        windows = sum(len(turn.windows) for turn in turns)
        size = self.measure(turns)
        return Said("".join(said), finish, size, CLIP_TOKENS * windows, 0, len(said), 0.0, 0.01, 0.02)

    def forget(self) -> None:
        self.told.clear()


def opened(model: Model) -> Stub:
    """Loads a stub; there is no model called ``broken``."""
    if model.model == "broken":
        raise CheckpointError("'broken' holds no model", "give another")
    return Stub(model)


if __name__ == "__main__":
    import gama.chat.voices
    from gama_cli.main import main

    gama.chat.voices.open_voice = opened  # type: ignore[assignment]
    sys.argv[0] = "gama"
    main()
