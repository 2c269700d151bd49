"""The language model leaves GAMA as a plain transformers folder."""

from __future__ import annotations

from pathlib import Path

import torch

from gama.export.folders import readable
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.quiet import quiet_loading

LANGUAGE_MODEL = "language_model"


def write_language_model(
    gama: GamaForConditionalGeneration, processor: GamaProcessor, folder: Path, dtype: torch.dtype
) -> None:
    """Write the language model alone; its weights are of that precision afterwards, in memory as well."""
    model = gama.language_model.to(dtype)
    model.config.dtype = dtype
    if gama.generation_config is not None:
        model.generation_config = gama.generation_config
    with quiet_loading(progress=False):
        model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    readable(folder)
