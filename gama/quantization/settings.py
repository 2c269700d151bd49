"""What transformers is told to quantize: the Linears of the language model, and nothing of what hears."""

from __future__ import annotations

from typing import Any

import torch

from gama.bitsandbytes_import import import_bitsandbytes
from gama.quantization.kinds import named
from gama.quiet import quiet_casts

_WHOLE = ["audio_tower", "lm_head"]
"""Modules that keep their precision: 5 % of the weights and most of the sensitivity."""


def settings(quant: str, dtype: torch.dtype) -> Any:
    """The ``BitsAndBytesConfig`` of ``4bit`` (NF4, double quantization) or ``8bit`` (LLM.int8).

    Args:
        quant: ``4bit`` or ``8bit``.
        dtype: of the products of 4-bit weights.

    Raises:
        MissingPackageError: without bitsandbytes.
    """
    import_bitsandbytes()
    quiet_casts()
    from transformers import BitsAndBytesConfig

    if quant == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_WHOLE,
    )


def held(model: torch.nn.Module) -> str:
    """How a model's language model is held: ``none``, ``8bit``, ``4bit`` or ``gptq``."""
    return named(getattr(model.config, "quantization_config", None), "the model")


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights as they are held, the scales of quantized ones among them."""
    return sum(_bytes(parameter) for parameter in model.parameters()) + sum(
        buffer.numel() * buffer.element_size() for buffer in model.buffers()
    )


def _bytes(parameter: torch.nn.Parameter) -> int:
    size = parameter.numel() * parameter.element_size()
    state = getattr(parameter, "quant_state", None)
    rows = getattr(parameter, "SCB", None)
    parts = [] if rows is None else [rows]
    for scales in (state, getattr(state, "state2", None)):
        parts += [scales.absmax, scales.code] if scales is not None else []
    return size + sum(part.numel() * part.element_size() for part in parts)
