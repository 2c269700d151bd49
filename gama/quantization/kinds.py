"""How the weights of a language model can be held, and how those of a folder are. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gama.checkpoints.json_files import read_table
from gama.errors import CheckpointError, GamaError

QUANTIZATIONS = ("none", "8bit", "4bit")
"""What a model can be held in while it is loaded."""


def stored(folder: Path) -> str:
    """How a folder's language model is stored: ``none``, ``8bit``, ``4bit`` or ``gptq``.

    Raises:
        CheckpointError: for a configuration that cannot be read, or a quantization of another kind.
    """
    return named(read_table(folder / "config.json").get("quantization_config"), str(folder))


def named(settings: Any, where: str) -> str:
    """The name of what a ``quantization_config`` says: a table, an object of transformers, or None."""
    if settings is None:
        return "none"
    table = settings.to_dict() if hasattr(settings, "to_dict") else settings
    method = table.get("quant_method") if isinstance(table, dict) else table
    if method == "gptq":
        return "gptq"
    if method == "bitsandbytes" and (table.get("load_in_4bit") or table.get("load_in_8bit")):
        return "4bit" if table.get("load_in_4bit") else "8bit"
    raise CheckpointError(f"{where}: its weights are quantized as {method!r}", "known: bitsandbytes and gptq")


def agreed(folder: Path, quant: str) -> str:
    """How a folder's model is to be held, given what was asked for: what is stored in few bits stays so.

    Raises:
        GamaError: for an unknown name.
        CheckpointError: where the folder is stored in another way than was asked for.
    """
    if quant not in QUANTIZATIONS:
        raise GamaError(f"no quantization is called {quant!r}", f"give {', '.join(QUANTIZATIONS)}")
    kept = stored(folder)
    if quant not in ("none", kept) and kept != "none":
        raise CheckpointError(
            f"{folder}: its weights are stored in {kept}, {quant} was asked for",
            "leave --quant out, or give the folder it was made of",
        )
    return quant if kept == "none" else kept
