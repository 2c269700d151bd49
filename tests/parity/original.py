"""A state dict with the original's names and deterministic weights, at the goldens' sizes or in small."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from parity import fill
from torch import Tensor

from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig

KEYS: dict[str, tuple[int, ...]] = {
    key: tuple(shape) for key, shape in json.loads(Path(__file__).with_name("original_keys.json").read_text()).items()
}
"""Every parameter of the original with a 2-layer LLaMA (hidden 4096, vocabulary 256) and LoRA."""

PREFIX = "base_model.model."

TINY_SIDES = {4096: 64, 3072: 96, 2304: 144, 1024: 80, 768: 48}
"""Side of a weight in the original -> in the tiny one. Counts of layers, queries, patches and ids stay."""

SLICES = {
    "fbank": np.s_[::7, ::3],
    "cavmae_a": np.s_[::16, ::8],
    "cavmae_j_block8_norm_j": np.s_[::16, ::8],
    "cavmae_k_block4_norm_k": np.s_[::16, ::8],
    "pooled_a": np.s_[::2, ::4],
    "pooled_j": np.s_[::2, ::4],
    "pooled_k": np.s_[::2, ::4],
    "qformer": np.s_[:, :],
    "agg1": np.s_[::2, ::4],
    "agg2": np.s_[:, ::2],
    "prefix": np.s_[:, ::16],
}
"""Which elements of each tensor the goldens hold."""

_ENCODER = ("cavmae_a", "cavmae_j_block8_norm_j", "cavmae_k_block4_norm_k")
_POOLED = ("pooled_a", "pooled_j", "pooled_k")
_LATE = ("qformer", "agg1", "agg2", "prefix")

# (largest difference, relative L2): about ten times the fp32-against-fp64 rounding of the original, measured.
# S is fed the very same features, so it is strict; A, B and C come through our own front end.
STRICT: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_ENCODER, (2e-5, 1.5e-6)),
    **dict.fromkeys(_POOLED, (1e-6, 1.5e-6)),
    **dict.fromkeys((*_LATE, "logits"), (5e-5, 3e-6)),
}
LOOSE: dict[str, tuple[float, float]] = {
    "fbank": (6e-3, 2e-4),
    **dict.fromkeys(_ENCODER, (1e-3, 3e-5)),
    **dict.fromkeys(_POOLED, (1e-5, 3e-5)),
    **dict.fromkeys(_LATE, (2e-4, 2e-5)),
    "logits": (5e-4, 3e-5),
}
LOSS_TOLERANCE = 5e-5
GRADIENT_TOLERANCE = 2e-3  # relative, of each norm


def distance(got: ArrayLike, want: ArrayLike) -> tuple[float, float]:
    """(largest difference, relative L2) in float64."""
    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert a.shape == b.shape, f"shape {a.shape}, expected {b.shape}"
    return float(np.abs(a - b).max()), float(np.linalg.norm(a - b) / np.linalg.norm(b))


def within(got: ArrayLike, want: ArrayLike, tolerance: tuple[float, float]) -> bool:
    """Whether both distances lie within the tolerance."""
    largest, relative = distance(got, want)
    return largest <= tolerance[0] and relative <= tolerance[1]


def text_config(**changes: object) -> dict[str, object]:
    """The goldens' language model."""
    config: dict[str, object] = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 1024,
        "vocab_size": 256,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return config | changes


def tiny_config(**changes: object) -> GamaConfig:
    """As deep as the original and 48 wide."""
    side = {"hidden_size": TINY_SIDES[768], "intermediate_size": TINY_SIDES[3072]}
    text = text_config(
        hidden_size=TINY_SIDES[4096], num_attention_heads=4, num_key_value_heads=4, intermediate_size=TINY_SIDES[1024]
    )
    return GamaConfig(
        text_config=text, encoder_config=GamaEncoderConfig(**side), qformer_config=GamaQFormerConfig(**side), **changes
    )


def state_dict(shapes: dict[str, tuple[int, ...]] = KEYS, prefix: str = PREFIX) -> dict[str, Tensor]:
    """Every tensor of ``shapes``, filled by name and shape."""
    filled = {key: fill.weights(key, shape) for key, shape in shapes.items()}
    return {prefix + key: torch.from_numpy(values) for key, values in filled.items() if values is not None}


def tiny_state_dict(prefix: str = PREFIX) -> dict[str, Tensor]:
    """The original's keys with small sides."""
    shapes = {key: tuple(TINY_SIDES.get(side, side) for side in shape) for key, shape in KEYS.items()}
    assert sum(math.prod(shape) for shape in shapes.values()) < 2_000_000
    return state_dict(shapes, prefix)
