"""A small model in a folder, with LoRA of random numbers in it, as ``gama convert --keep-adapter`` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from model import small
from safetensors.torch import save_file
from torch import Tensor

from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaFeatureExtractor, GamaProcessor

RANK, ALPHA = 2, 4
TARGETS = ("q_proj", "v_proj")


def write_model(folder: Path, *, family: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """A small GAMA without LoRA."""
    tokenizer = small.tokenizer()
    gama = small.model(family, audio_token_id=len(tokenizer)).to(dtype)
    gama.config.license = "mit"
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    gama.save_pretrained(folder)
    GamaProcessor(
        extractor, tokenizer, audio_token_id=len(tokenizer), num_audio_tokens=gama.config.num_audio_tokens
    ).save_pretrained(folder)
    return folder


def halves(gama: GamaForConditionalGeneration, *, seed: int = 3) -> dict[str, Tensor]:
    """``MODULE.lora_A`` and ``MODULE.lora_B`` of random numbers for the modules of the language model."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, module in gama.language_model.named_modules():
        if name.endswith(TARGETS):
            out, into = module.weight.shape
            made[f"{name}.lora_A"] = torch.randn(RANK, into, generator=generator)
            made[f"{name}.lora_B"] = torch.randn(out, RANK, generator=generator) / 4
    return made


def write_lora(
    folder: Path, model: Path, *, key: str = "base_model.model.language_model.{}.weight", **changes: Any
) -> Path:
    """LoRA for the model of a folder; ``key`` is how its weights are called."""
    folder.mkdir(parents=True, exist_ok=True)
    made = halves(GamaForConditionalGeneration.from_pretrained(model))
    names = sorted({name.rpartition(".")[0] for name in made})
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.05,
        "bias": "none",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": [f"language_model.{name}" for name in names],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    save_file(
        {key.format(n): t for n, t in made.items()}, folder / "adapter_model.safetensors", metadata={"format": "pt"}
    )
    return folder
