"""``convert`` from the origins of GAMA's parts, and in front of other language models: starts for stage 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import small
from checkpoints.converted import FBANK, loaded, logits, refusal
from parity.original import PREFIX, tiny_config, tiny_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from gama.checkpoints.conversion import Request, convert
from gama.checkpoints.original import load_original
from gama.checkpoints.reading import read_shards


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_stage(tmp_path_factory.mktemp("stage") / "pytorch_model.bin")


@pytest.fixture(scope="module")
def want() -> Tensor:
    """What the whole state dict computes by way of ``load_original``, which the goldens prove."""
    return logits(load_original(tiny_state_dict(), tiny_config(), lora="merge"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_base(tmp_path_factory.mktemp("base") / "Llama-2-7b-chat-hf")


def test_stage_1_starts_from_its_origins(base: Path, tmp_path: Path) -> None:
    weights = small.stage_weights()
    torch.save(small.cavmae(weights), tmp_path / "cavmae.pth")
    torch.save(small.lavis(weights), tmp_path / "lavis.pth")
    request = Request(base=base, encoder=tmp_path / "cavmae.pth", qformer=tmp_path / "lavis.pth", stage1=True)
    done = convert(request, tmp_path / "out")
    model = loaded(tmp_path / "out")
    original = load_original(tiny_state_dict(), tiny_config(), lora="merge")
    with torch.no_grad():
        got, want = model.hear(FBANK), original.hear(FBANK)
    assert torch.equal(got.encoded, want.encoded)
    assert torch.equal(got.queries, want.queries)
    assert not torch.equal(got.aggregated, want.aggregated)
    parts = {".".join(name.split(".")[:2]) for name in done.drawn if "tap_norms" not in name}
    assert parts == {"audio_tower.aggregator", "audio_tower.qformer_projector", "audio_tower.aggregator_projector"}
    reasons = {f.detail for f in done.fates if f.what == "dropped"}
    assert any("video" in r for r in reasons) and any("text branch" in r for r in reasons)
    assert "replaced by --encoder" in reasons  # the encoder inside LAVIS's file


def test_the_encoder_inside_a_qformer_checkpoint(base: Path, tmp_path: Path) -> None:
    torch.save(small.lavis(small.stage_weights()), tmp_path / "lavis.pth")
    convert(Request(base=base, qformer=tmp_path / "lavis.pth", stage1=True), tmp_path / "out")
    weights = read_shards(tmp_path / "out")
    position = small.stage_weights()[f"{PREFIX}model.audio_encoder.pos_embed_a"]
    assert torch.equal(weights["audio_tower.encoder.position"], position + 1)


def test_gaps_are_drawn_for_stage_1_only(base: Path, tmp_path: Path) -> None:
    torch.save(small.cavmae(small.stage_weights()), tmp_path / "cavmae.pth")
    told = refusal(Request(base=base, encoder=tmp_path / "cavmae.pth"), tmp_path)
    assert "audio_tower.qformer" in told and "--stage1" in told


def test_what_is_drawn_is_drawn_as_a_new_model_draws_it(base: Path, tmp_path: Path) -> None:
    torch.save(small.cavmae(small.stage_weights()), tmp_path / "cavmae.pth")
    twice = [tmp_path / "one", tmp_path / "two", tmp_path / "other"]
    for folder, seed in zip(twice, (3, 3, 4), strict=True):
        convert(Request(base=base, encoder=tmp_path / "cavmae.pth", stage1=True, seed=seed), folder)
    name = "audio_tower.aggregator_projector.fc1.weight"
    one, two, other = (read_shards(folder)[name] for folder in twice)
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert one.std().item() == pytest.approx(0.02, rel=0.1)


BASES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2},
}


@pytest.mark.parametrize("kind", BASES)
def test_any_base_for_stage_1(kind: str, stage: Path, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
    config = AutoConfig.for_model(kind, **sizes, **BASES[kind], vocab_size=300, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(1)
    language = AutoModelForCausalLM.from_config(config).eval()
    language.save_pretrained(tmp_path / "base")
    small.tokenizer().save_pretrained(tmp_path / "base")
    done = convert(Request(audio=(stage,), base=tmp_path / "base", stage1=True), tmp_path / "out")
    model = loaded(tmp_path / "out")
    assert model.audio_tower.qformer_projector.fc2.weight.shape == (32, 32)
    assert model.config.audio_token_id == 300
    ids = torch.tensor([[1, 17, 80, 9, 200]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, language(input_ids=ids).logits)
        heard = model.hear(FBANK)
        original = load_original(tiny_state_dict(), tiny_config(), lora="merge").hear(FBANK)
    assert torch.equal(heard.aggregated, original.aggregated)
    assert all("projector" in name for name in done.drawn)
    assert any(f.what == "dropped" and "LoRA" in f.detail for f in done.fates)


def test_a_base_whose_weights_have_other_names(stage: Path, tmp_path: Path) -> None:
    """transformers renames GPT-NeoX's head as it loads: told, and not half converted."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    language = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_neox", **sizes, vocab_size=256))
    language.save_pretrained(tmp_path / "base")
    small.tokenizer().save_pretrained(tmp_path / "base")
    assert "embed_out" in refusal(Request(audio=(stage,), base=tmp_path / "base", stage1=True), tmp_path)


def test_the_base_with_the_audio_side_in_it(base: Path, want: Tensor, stage: Path, tmp_path: Path) -> None:
    """Llama-2-7b-chat-hf-qformer: CAV-MAE and the Q-Former with its text branch, as shards 3 and 4 of 2."""
    weights = small.stage_weights()
    folder = small.write_base(tmp_path / "Llama-2-7b-chat-hf-qformer")
    encoder = {f"model.audio_encoder.{k.removeprefix('module.')}": t + 1 for k, t in small.cavmae(weights).items()}
    save_file(encoder, folder / "model-00003-of-00002.safetensors")
    renamed = (
        ("Qformer.", "model.Qformer."),
        ("query_tokens", "model.query_tokens"),
        ("ln_vision.", "model.qformer_proj_norm."),
    )
    qformer = {
        key.replace(theirs, ours, 1): tensor.clone()
        for key, tensor in small.lavis(weights)["model"].items()
        for theirs, ours in renamed
        if key.startswith(theirs)
    }
    save_file(qformer, folder / "model-00004-of-00002.safetensors")
    done = convert(Request(audio=(stage,), base=folder), tmp_path / "out")
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)
    assert sum(f.detail == "replaced by --audio" for f in done.fates) == 150 + 257
    convert(Request(base=folder, stage1=True), tmp_path / "start")
    position = weights[f"{PREFIX}model.audio_encoder.pos_embed_a"]
    assert torch.equal(read_shards(tmp_path / "start")["audio_tower.encoder.position"], position + 1)


def test_the_papers_aggregator(stage: Path, base: Path, tmp_path: Path) -> None:
    convert(Request(audio=(stage,), base=base, aggregator="paper"), tmp_path / "out")
    want = logits(load_original(tiny_state_dict(), tiny_config(aggregator="paper"), lora="merge"))
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), want, atol=1e-6, rtol=0)
