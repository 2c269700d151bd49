"""LAION-CLAP -> ClapModel: random weights of transformers, renamed as LAION has them, come back the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from gama.checkpoints.clap import convert_clap
from gama.errors import CheckpointError

FIELDS = (
    ("audio_model.audio_encoder.batch_norm.", "audio_branch.bn0."),
    ("audio_model.audio_encoder.", "audio_branch."),
    ("text_model.", "text_branch."),
    ("_projection.linear1.", "_projection.0."),
    ("_projection.linear2.", "_projection.2."),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
)
BLOCK = (
    ("attention.output.dense", "attn.proj"),
    ("attention.self.", "attn."),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def laion_name(name: str) -> str:
    for ours, theirs in FIELDS:
        name = name.replace(ours, theirs)
    if ".blocks." in name:
        for ours, theirs in BLOCK:
            name = name.replace(ours, theirs)
    return name


def laion(model: ClapModel) -> dict[str, Tensor]:
    """The state dict as LAION-CLAP saves it: fused query-key-value, what ClapModel has not, and ``module.``."""
    state = {laion_name(name): tensor.clone() for name, tensor in model.state_dict().items()}
    for key in [k for k in state if re.search(r"attn\.query\.", k)]:
        parts = [state.pop(key.replace("query", part)) for part in ("query", "key", "value")]
        state[key.replace("query", "qkv")] = torch.cat(parts)
    state.pop("text_branch.embeddings.token_type_ids")
    state["audio_branch.logmel_extractor.melW"] = torch.rand(513, 64)
    state["audio_branch.spectrogram_extractor.stft.conv_real.weight"] = torch.rand(513, 1, 8)
    state["audio_branch.layers.0.blocks.1.attn_mask"] = torch.zeros(4, 64, 64)
    state["audio_branch.tscam_conv.weight"] = torch.rand(527, 4, 2, 3)
    state["audio_branch.head.weight"] = torch.rand(527, 527)
    state["audio_transform.sequential.0.weight"] = torch.rand(16, 16)
    state["text_transform.sequential.3.bias"] = torch.rand(16)
    return {f"module.{key}": tensor for key, tensor in state.items()}


def tiny(*, fusion: bool) -> ClapModel:
    torch.manual_seed(7)
    config = ClapConfig(
        text_config={
            "vocab_size": 50,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "intermediate_size": 48,
            "max_position_embeddings": 30,
            "layer_norm_eps": 1e-5,
        },
        audio_config={
            "patch_embeds_hidden_size": 8,
            "hidden_size": 64,
            "depths": [2, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "enable_fusion": fusion,
        },
        projection_dim=16,
    )
    model = ClapModel(config).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.randn_like(tensor).abs() * 0.3 if tensor.ndim == 1 else torch.randn_like(tensor) * 0.2
                )
    return model


def save(path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save({"epoch": 45, "name": "clap", "state_dict": weights, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize("fusion", [False, True], ids=["unfused", "fused"])
def test_round_trip(fusion: bool, tmp_path: Path) -> None:
    model = tiny(fusion=fusion)
    done = convert_clap(save(tmp_path / "clap.pt", laion(model)), tmp_path / "out")
    loaded, info = ClapModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    inputs = {
        "input_ids": torch.tensor([[0, 5, 9, 2], [0, 7, 2, 1]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "input_features": torch.randn(2, 4 if fusion else 1, 1001, 64),
        "is_longer": torch.tensor([[fusion], [False]]),
    }
    with torch.no_grad():
        want, got = model(**inputs), loaded.eval()(**inputs)
    assert torch.equal(got.logits_per_audio, want.logits_per_audio)
    assert ClapFeatureExtractor.from_pretrained(tmp_path / "out").truncation == ("fusion" if fusion else "rand_trunc")
    assert len([fate for fate in done.fates if fate.what == "dropped"]) == 7


def test_every_weight_is_needed(tmp_path: Path) -> None:
    weights = laion(tiny(fusion=False))
    weights.pop("module.audio_branch.layers.2.blocks.0.mlp.fc1.bias")
    with pytest.raises(CheckpointError, match=r"layers\.2\.blocks\.0\.intermediate\.dense\.bias"):
        convert_clap(save(tmp_path / "clap.pt", weights), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clap.pt"]


def test_another_text_tower_is_refused(tmp_path: Path) -> None:
    weights = {k: t for k, t in laion(tiny(fusion=False)).items() if "text_branch" not in k}
    weights["module.text_branch.encoder.block.0.layer.0.SelfAttention.q.weight"] = torch.rand(4, 4)
    with pytest.raises(CheckpointError, match="RoBERTa"):
        convert_clap(save(tmp_path / "clap.pt", weights), tmp_path / "out")


def test_what_is_no_clap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"lm_head.weight": torch.rand(2, 2)}, path)
    with pytest.raises(CheckpointError, match="LAION-CLAP"):
        convert_clap(path, tmp_path / "out")
