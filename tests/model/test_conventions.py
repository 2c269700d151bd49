"""What tools of transformers take for granted of a model: its parts, names, outputs and folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model import small
from model.small import CLIP, WORDS, logits
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from gama.errors import CheckpointError
from gama.model.configuration import GamaConfig, GamaEncoderConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.model.headless import GamaModel

IDS = torch.tensor([CLIP + WORDS])
CONV_STEM = small.ENCODER | {"stem": "conv", "stem_channels": [4, 8, 8]}


@pytest.fixture(scope="module")
def llama() -> GamaForConditionalGeneration:
    return small.model("llama")


# -- a model without a head --------------------------------------------------------------------------------------------


def test_the_base_model_shares_every_module(llama: GamaForConditionalGeneration) -> None:
    base = llama.base_model
    assert isinstance(base, GamaModel) and base is llama.model is llama.base_model
    assert base.audio_tower is llama.audio_tower and base.language_model is llama.language_model.model
    assert not [name for name, _ in llama.named_modules() if name.startswith("model.")], "each module is there once"
    with torch.no_grad():
        hidden = base(input_ids=IDS, input_features=small.fbanks(1)).last_hidden_state
        assert torch.equal(llama.lm_head(hidden), logits(llama, IDS, input_features=small.fbanks(1)))
    assert llama.get_decoder() is llama.language_model.model


def test_the_base_model_follows_what_is_put_in() -> None:
    made, other = small.model("llama"), small.model("llama", seed=3)
    before = made.model
    made.language_model = other.language_model
    assert made.model is not before and made.model.language_model is other.language_model.model
    assert made.train().model.training and not made.eval().model.training


@pytest.mark.parametrize("family", ["llama", "tied"])
def test_folders_with_and_without_a_head_fit_each_other(family: str, tmp_path: Path) -> None:
    made = small.model(family)
    made.save_pretrained(tmp_path / "whole")
    headless, report = AutoModel.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    headless.save_pretrained(tmp_path / "headless")
    keys = load_file(tmp_path / "headless" / "model.safetensors").keys()
    assert set(keys) == {n for n in load_file(tmp_path / "whole" / "model.safetensors") if ".lm_head." not in n}
    again, report = GamaForConditionalGeneration.from_pretrained(tmp_path / "headless", output_loading_info=True)
    assert set(report["missing_keys"]) == (set() if family == "tied" else {"language_model.lm_head.weight"})
    for name, tensor in again.state_dict().items():
        assert ".lm_head." in name or torch.equal(tensor, made.state_dict()[name]), name


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForCausalLM])
def test_an_audio_tower_alone_is_no_model(auto: Any, llama: GamaForConditionalGeneration, tmp_path: Path) -> None:
    """A merged export holds such a folder; a language model of random weights would answer nonsense."""
    llama.config.save_pretrained(tmp_path)
    tower = {n: t.contiguous() for n, t in llama.state_dict().items() if n.startswith("audio_tower.")}
    save_file(tower, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="hold an audio tower and no language model"):
        auto.from_pretrained(tmp_path)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was noted about former names, each as often as it was said."""
    said: list[str] = []
    logger = SimpleNamespace(warning_once=said.append)
    monkeypatch.setattr("gama.model.former_names.logger", logger)
    return said


def test_both_names_of_the_clips(llama: GamaForConditionalGeneration, notes: list[str]) -> None:
    fbank = small.fbanks(1)
    want = logits(llama, IDS, input_features=fbank)
    assert torch.equal(logits(llama, IDS, audio_features=llama.get_audio_features(fbank)), want)
    assert notes == []
    assert torch.equal(logits(llama, IDS, audio_values=fbank), want)
    with pytest.raises(ValueError, match="two names of one thing"):
        llama(input_ids=IDS, input_features=fbank, audio_values=fbank)


def test_the_former_name_of_the_clips_is_noted(llama: GamaForConditionalGeneration, notes: list[str]) -> None:
    fbank, note = small.fbanks(1), "'audio_values' is called 'input_features' now"
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    uses: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (llama, {"input_ids": IDS}),
        (llama.model, {"input_ids": IDS}),
        (llama.get_audio_features, {}),
        (llama.generate, {"input_ids": IDS, **settings}),
    ]
    for use, given in uses:
        use(input_features=fbank, **given)
        assert notes == []
        use(audio_values=fbank, **given)
        assert notes and all(said.startswith(note) for said in notes)
        notes.clear()


def test_both_names_of_the_audio_configuration(tmp_path: Path, notes: list[str]) -> None:
    new = small.config()
    facts = new.to_dict()
    assert "encoder_config" not in facts
    new.save_pretrained(tmp_path)
    assert GamaConfig.from_pretrained(tmp_path).to_dict() == facts
    old_facts = json.loads((tmp_path / "config.json").read_text())
    old_facts["encoder_config"] = old_facts.pop("audio_config")
    (tmp_path / "config.json").write_text(json.dumps(old_facts))
    for opens in (GamaConfig, AutoConfig):
        assert opens.from_pretrained(tmp_path).audio_config.to_dict() == new.audio_config.to_dict()
    assert notes == []  # nobody wrote the old name now
    parts = {"text_config": new.text_config, "qformer_config": small.QFORMER, "aggregator": "paper"}
    old = GamaConfig(encoder_config=small.ENCODER, **parts)
    assert old.audio_config.to_dict() == new.audio_config.to_dict() and len(notes) == 1
    assert old.encoder_config is old.audio_config and isinstance(old.audio_config, GamaEncoderConfig)
    old.encoder_config = new.audio_config
    assert old.audio_config is new.audio_config and len(notes) == 3
    assert all(note.startswith("'encoder_config' is called 'audio_config' now") for note in notes)
    with pytest.raises(ValueError, match="two names of one thing"):
        GamaConfig(audio_config=small.ENCODER, encoder_config=small.ENCODER)


def test_the_number_of_soft_tokens_follows_from_the_sizes(llama: GamaForConditionalGeneration, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path)
    same = AutoModelForCausalLM.from_pretrained(tmp_path, num_audio_tokens=small.SOFT)
    assert same.config.num_audio_tokens == small.SOFT
    with pytest.raises(ValueError, match=f"num_audio_tokens is 9, but this model makes {small.SOFT}"):
        AutoModelForCausalLM.from_pretrained(tmp_path, num_audio_tokens=9)


def test_modalities_of_each_part(llama: GamaForConditionalGeneration) -> None:
    assert llama.input_modalities == llama.model.input_modalities == ("audio", "text")
    assert llama.audio_tower.input_modalities == ("audio",)


# -- the audio tower ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["paper", "released"])
def test_the_tower_follows_the_attention_asked_for(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, fbank = small.model("llama", aggregator=form), small.fbanks(1)
    assert isinstance(made.audio_tower, PreTrainedModel) and made.audio_tower.config is made.config.audio_config
    with torch.no_grad():
        want = made.get_audio_features(fbank).pooler_output
        calls: list[int] = []
        monkeypatch.setattr("gama.model.attention.attend", lambda *a, **k: calls.append(1))
        made.set_attn_implementation("eager")
        assert {p._attn_implementation for p in (made.config.audio_config, made.config.qformer_config)} == {"eager"}
        got = made.get_audio_features(fbank).pooler_output
    assert not calls
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_outputs_of_the_tower(llama: GamaForConditionalGeneration) -> None:
    with torch.no_grad():
        out = llama.get_audio_features(small.fbanks(2), output_attentions=True, output_hidden_states=True)
        stages = llama.hear(small.fbanks(2))
    patches = (small.BINS // 16) * (small.FRAMES // 16)
    # attention weights come of plain products, which add up in another order
    torch.testing.assert_close(out.pooler_output, stages.prefix, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.last_hidden_state, stages.encoded, atol=1e-5, rtol=1e-5)
    assert [h.shape for h in out.hidden_states] == [(2, patches, 32)] * 4
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    assert [a.shape for a in out.attentions] == [(2, 4, patches, patches)] * 3
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 4, patches))
    plain = llama.get_audio_features(small.fbanks(2), return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == 2


def test_every_trainable_parameter_gets_a_gradient_in_the_released_form(tmp_path: Path) -> None:
    """Norms that nothing reads take no part: DistributedDataParallel waits for the gradient of every parameter."""
    made = small.model("llama", aggregator="released")
    made.save_pretrained(tmp_path)
    for model in (made.train(), GamaForConditionalGeneration.from_pretrained(tmp_path).train()):
        model(input_ids=IDS, input_features=small.fbanks(1), labels=IDS).loss.backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        frozen = {n.rsplit(".", 2)[0] for n, p in model.named_parameters() if not p.requires_grad}
        assert not without and frozen == {"audio_tower.encoder.tap_norms"}


def test_statistics_of_a_frozen_stem_stand_still() -> None:
    """An adapter is saved without them, so what they moved to would be lost."""
    made = small.model("llama", audio_config=CONV_STEM)
    norm = made.audio_tower.encoder.patches.norms[0]
    before = norm.running_mean.clone()
    made.requires_grad_(False).train()
    made.hear(small.fbanks(2))
    assert torch.equal(norm.running_mean, before) and int(norm.num_batches_tracked) == 0
    norm.requires_grad_(True)
    made.hear(small.fbanks(2))
    assert not torch.equal(norm.running_mean, before), "statistics of a norm that learns move"


# -- weights that lie elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["disk", "cpu"])
def test_offloaded_weights(where: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    made = small.model("llama", prefix_positions=True)
    made.save_pretrained(tmp_path / "model")
    want = logits(made, IDS, input_features=small.fbanks(1))
    # accelerate has another way for a whole model on the disk
    places = {"audio_tower": where, "language_model": "cpu", "prefix_positions": where}
    loaded = GamaForConditionalGeneration.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    torch.testing.assert_close(logits(loaded, IDS, input_features=small.fbanks(1)), want)


def test_shards(llama: GamaForConditionalGeneration, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto", device_map="auto")
    assert torch.equal(
        logits(again, IDS, input_features=small.fbanks(1)), logits(llama, IDS, input_features=small.fbanks(1))
    )


def test_resizing_keeps_the_placeholder(llama: GamaForConditionalGeneration) -> None:
    """More words than before, the placeholder's id among them: it stands for sound as it did."""
    made, fbank = small.model("llama"), small.fbanks(1)
    want = logits(made, IDS, input_features=fbank)
    table = made.resize_token_embeddings(small.VOCABULARY + 2, mean_resizing=False)
    assert isinstance(table, nn.Embedding) and table.num_embeddings == small.VOCABULARY + 2
    assert made.config.text_config.vocab_size == small.VOCABULARY + 2
    got = logits(made, IDS, input_features=fbank)
    torch.testing.assert_close(got[..., : small.VOCABULARY], want)
