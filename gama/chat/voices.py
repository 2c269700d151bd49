"""A model by name becomes a voice that a session can ask."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from gama.chat.settings import Model
from gama.checkpoints.bundled import model_folder
from gama.errors import PromptError
from gama.inference.turns import Voice
from gama.text import printable

QUANTIZATIONS = ("none", "8bit", "4bit")


def open_voice(model: Model) -> Voice:
    """Load it; see :func:`gama.inference.opening.open_asker` for what can be wrong."""
    from gama.inference.memory import Memory
    from gama.inference.opening import open_asker

    loading = asdict(model)
    folder, limit = loading.pop("cache"), loading.pop("cache_size")
    loading["name_or_dir"] = loading.pop("model")
    return Memory(open_asker(loading, None if folder is None else (Path(folder), limit)))


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
