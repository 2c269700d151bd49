"""The goldens of the original code through files: stage checkpoint + base folder -> convert -> from_pretrained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import small
from parity import fill
from parity.original import KEYS, SLICES, STRICT, state_dict, text_config, within

from gama.checkpoints.conversion import Request, convert
from gama.model.gama import GamaForConditionalGeneration

pytestmark = pytest.mark.slow  # 1.7 GB of weights are written twice

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
AUDIO = np.load(GOLDEN / "golden_audio.npz")
LM = np.load(GOLDEN / "golden_lm.npz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The goldens' model, its audio side in full size, by way of the command's own path."""
    root = tmp_path_factory.mktemp("full")
    saved = {key: shape for key, shape in KEYS.items() if any(word in key for word in small.SAVED)}
    small.write_stage(root / "pytorch_model.bin", state_dict(saved))
    language = {key: shape for key, shape in KEYS.items() if key not in saved}
    base = small.write_base(root / "base", state_dict(language, prefix=""))
    (base / "config.json").write_text(json.dumps(text_config(architectures=["LlamaForCausalLM"])))
    convert(Request(audio=(root / "pytorch_model.bin",), base=base), root / "merged")
    convert(Request(audio=(root / "pytorch_model.bin",), base=base, keep_adapter=True), root / "kept")
    return root


@pytest.fixture(scope="module", params=["merged", "kept"])
def model(request: pytest.FixtureRequest, folder: Path) -> Iterator[GamaForConditionalGeneration]:
    yield GamaForConditionalGeneration.from_pretrained(folder / request.param).eval()


@torch.no_grad()
def test_goldens(model: GamaForConditionalGeneration) -> None:
    heard = model.hear(torch.from_numpy(fill.unit("fbank/S", 1024 * 128).reshape(1, 1024, 128)))
    for stage, tensor in (("cavmae_a", heard.encoded), ("qformer", heard.queries), ("prefix", heard.prefix)):
        assert within(tensor[0].numpy()[SLICES[stage]], AUDIO[f"S/{stage}"], STRICT[stage]), stage
    prompt = torch.from_numpy(LM["prompt_ids"])
    ids = torch.cat([torch.full((1, 96), 256), prompt], dim=1)
    got = model(input_ids=ids, audio_features=heard.prefix).logits[0, 96:].numpy()
    assert within(got, LM["logits_audio_S"], STRICT["logits"])
