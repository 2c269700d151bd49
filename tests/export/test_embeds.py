"""Prompt embeddings make a plain language model say what the model says."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from gama.export.embeds import encoded, prompt_embeds
from gama.inference.engine import Gama, load
from gama_cli.export_embeds import embeds


@pytest.fixture(scope="module")
def mini() -> Gama:
    return load(None, device="cpu", dtype="float32")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    return path


def decoded(text: str) -> torch.Tensor:
    """As vLLM reads it."""
    tensor: torch.Tensor = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True)
    return tensor


def test_the_language_model_answers_alike(mini: Gama, clip: Path) -> None:
    tensor = decoded(encoded(prompt_embeds(mini, [clip], "what happened?")))
    assert tensor.ndim == 2 and tensor.shape[1] == mini.model.config.text_config.hidden_size
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": mini.stop_ids}
    mask = torch.ones(1, len(tensor), dtype=torch.long)
    ids = mini.model.language_model.generate(inputs_embeds=tensor[None], attention_mask=mask, **settings)[0]
    text = mini.processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert text.strip() == str(mini.ask(clip, "what happened?", max_new_tokens=8)).strip()


def test_the_command(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "request.json"
    given = [str(clip), "what happened?", "--served", "lm", "--dtype", "bfloat16", "--max-tokens", "7", "-o", str(out)]
    done = CliRunner().invoke(embeds, given, catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout == f"{out}\n"
    request = json.loads(out.read_text())
    assert (request["model"], request["max_tokens"]) == ("lm", 7)
    assert decoded(request["prompt_embeds"]).dtype == torch.bfloat16
    plain = CliRunner().invoke(embeds, [str(clip), "what happened?"], catch_exceptions=False)
    assert decoded(plain.stdout.strip()).shape == decoded(request["prompt_embeds"]).shape
