"""A model, clips and recipes small enough to train for a few steps within a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gama.data.scenes.prepare import write_scenes

MODEL: dict[str, Any] = {
    "aggregator": "paper",
    "prefix_positions": True,
    "encoder_config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "stem": "conv",
        "stem_channels": [4, 4, 8],
        "taps": [0, 1],
        "feature_divisor": 1.0,
    },
    "qformer_config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "aggregator_dropout": 0.1,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": 900,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    },
}

STAGE: dict[str, Any] = {
    "objective": "answer",
    "starts_from": "base",
    "trainable": ["aggregator", "qformer", "projectors"],
    "lora": {"r": 2, "alpha": 4, "dropout": 0.1},
    "data": {"questions": 2, "augmentation": 0.5},
    "per_device_train_batch_size": 2,
    "max_steps": 2,
    "learning_rate": 1.0e-2,
    "logging_steps": 1,
    "save_steps": 100,
    "seed": 5,
}


def quick_tokenizer(patch: pytest.MonkeyPatch) -> None:
    """Let models made from nothing learn their tokenizer from few texts."""
    from gama.data import tokenizer
    from gama.training import stages

    patch.setattr(stages, "TOKENIZER_TEXTS", 300)
    patch.setattr(tokenizer, "_WORD_REPEATS", 300)


def write_parent(folder: Path) -> Path:
    """A model of random weights in ``folder``."""
    from gama.training import stages
    from gama.training.trainer import save

    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        quick_tokenizer(patch)
        save(*stages.from_nothing(MODEL, 3), folder)
    return folder


def write_clips(folder: Path, count: int = 8) -> Path:
    """Scenes of our own making; returns their manifest."""
    return write_scenes(folder, count, 3, questions=2)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A manifest of the given rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_stage(path: Path, **changes: Any) -> Path:
    """A recipe file: :data:`STAGE` with changes; None takes a key out."""
    values = {key: value for key, value in (STAGE | changes).items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def metrics(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
