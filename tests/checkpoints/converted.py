"""What the tests of conversion share: a converted folder's model, what it computes, and a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parity import fill
from torch import Tensor

from gama.checkpoints.conversion import Request, convert
from gama.errors import CheckpointError
from gama.inference.loading import load_model
from gama.model.gama import GamaForConditionalGeneration

FBANK = torch.from_numpy(fill.unit("fbank/S", 1024 * 128).reshape(1, 1024, 128))


@torch.no_grad()
def logits(model: GamaForConditionalGeneration) -> Tensor:
    """Logits of a short prompt behind a clip."""
    placeholder = model.config.audio_token_id
    ids = torch.cat([torch.full((1, 96), placeholder), torch.tensor([[1, 17, 80, 9, 200]])], dim=1)
    return model(input_ids=ids, audio_values=FBANK.to(model.dtype)).logits.float()


def loaded(folder: Path) -> GamaForConditionalGeneration:
    """As ``gama ask --model`` loads it: every key of the folder has its place."""
    return load_model(folder, quant="none", device="cpu", dtype="float32")[0]


def refusal(request: Request, tmp_path: Path) -> str:
    """What is told when a conversion is refused; nothing may be left behind."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError) as caught:
        convert(request, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before, "something was left behind"
    return str(caught.value)
