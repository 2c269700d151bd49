"""A model by name becomes a voice that a session can ask."""

from __future__ import annotations

from dataclasses import asdict

from gama.chat.settings import Model
from gama.checkpoints.bundled import model_folder
from gama.errors import PromptError
from gama.inference.turns import Voice
from gama.text import printable

QUANTIZATIONS = ("none", "8bit", "4bit")


def open_voice(model: Model) -> Voice:
    """Load it; see :func:`gama.inference.opening.load` for what can be wrong."""
    from gama.inference.memory import Memory
    from gama.inference.opening import load

    return Memory(load(model.model, **{k: v for k, v in asdict(model).items() if k != "model"}))


def check(model: Model) -> None:
    """Refuse what can be told to be wrong without loading anything.

    Raises:
        CheckpointError: when there is no such model.
        PromptError: for an unknown quantization.
    """
    model_folder(model.model)
    if model.quant not in QUANTIZATIONS:
        raise PromptError(f"no quantization is called {printable(model.quant)!r}", f"give {', '.join(QUANTIZATIONS)}")


__all__ = ["QUANTIZATIONS", "check", "open_voice"]
