"""Saved, loaded, trained, adapted and quantized: it stays the same model."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from model import small
from model.small import CLIP, ROWS, WORDS, generate, logits
from packaging.version import Version
from torch import nn
from transformers.integrations.peft import MIN_PEFT_VERSION

import gama
from gama.model.gama import GamaForConditionalGeneration
from gama.model.headless import GamaModel


@pytest.fixture(scope="module")
def llama() -> GamaForConditionalGeneration:
    return small.model("llama")


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", small.FAMILIES)
def test_save_and_load(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, fbank = small.model(family), small.fbanks(1)
    want = logits(model, CLIP + WORDS, audio_values=fbank)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        loaded, report = GamaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        assert not report[kind], kind
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert not loaded.training
    assert torch.equal(logits(loaded, CLIP + WORDS, audio_values=fbank), want)
    again = generate(loaded, ROWS, small.fbanks(4))
    assert torch.equal(again, generate(model, ROWS, small.fbanks(4)))


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    small.model("tied").save_pretrained(tmp_path)
    loaded = GamaForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    loose = small.model("qwen2")
    assert loose.get_output_embeddings().weight is not loose.get_input_embeddings().weight


def test_auto_classes(llama: GamaForConditionalGeneration, tmp_path: Path) -> None:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        AutoModelForPreTraining,
    )

    llama.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), gama.GamaConfig)
    want = logits(llama, CLIP + WORDS, audio_values=small.fbanks(1))
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForPreTraining):
        loaded = auto.from_pretrained(tmp_path)
        assert isinstance(loaded, gama.GamaForConditionalGeneration)
        assert torch.equal(logits(loaded, CLIP + WORDS, audio_values=small.fbanks(1)), want)
    headless = AutoModel.from_pretrained(tmp_path)  # as of every model of transformers: without a head
    assert isinstance(headless, GamaModel)
    with torch.no_grad():
        hidden = headless(input_ids=torch.tensor([CLIP + WORDS]), input_features=small.fbanks(1)).last_hidden_state
        assert torch.equal(loaded.lm_head(hidden), want)


def test_bfloat16(llama: GamaForConditionalGeneration, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path)
    half = GamaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    got = logits(half, CLIP + WORDS, audio_values=small.fbanks(1))
    want = logits(llama, CLIP + WORDS, audio_values=small.fbanks(1))
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).norm() < 0.1 * want.norm()  # 8 bits of mantissa through some ten layers
    assert generate(half, ROWS, small.fbanks(4)).shape == (4, 8)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")  # the name changes with transformers 6
def test_gradient_checkpointing() -> None:
    ids = torch.tensor([CLIP + WORDS])
    gradients = []
    for checkpointing in (False, True):
        made = small.model("llama", qformer_config=small.QFORMER | {"aggregator_dropout": 0.0}).train()
        if checkpointing:
            made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            tower = made.audio_tower
            kinds = (made.language_model.model, tower.encoder, tower.qformer, tower.aggregator)
            assert all(layer.gradient_checkpointing for part in kinds for layer in part.layers)
        made(input_ids=ids, audio_values=small.fbanks(1), labels=ids, use_cache=False).loss.backward()
        gradients.append({n: p.grad for n, p in made.named_parameters() if p.grad is not None})
    plain, saved = gradients
    assert plain.keys() == saved.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, msg=name)


def test_every_parameter_gets_a_gradient() -> None:
    made = small.model("llama").train()
    ids = torch.tensor([CLIP + WORDS])
    made(input_ids=ids, audio_values=small.fbanks(1), labels=ids).loss.backward()
    assert [n for n, p in made.named_parameters() if p.grad is None] == []


def test_resizing_the_vocabulary() -> None:
    made = small.model("llama")
    fbank = small.fbanks(1)
    want = logits(made, CLIP + WORDS, audio_values=fbank)
    made.resize_token_embeddings(small.VOCABULARY - 20)
    assert made.config.text_config.vocab_size == small.VOCABULARY - 20
    torch.testing.assert_close(logits(made, CLIP + WORDS, audio_values=fbank), want[..., :-20])


# -- adapters and quantization -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")  # peft asks by the old name
@pytest.mark.parametrize("way", ["get_peft_model", "add_adapter"])
def test_lora_on_the_language_model(way: str) -> None:
    peft = pytest.importorskip("peft")
    made = small.model("llama")
    fbank = small.fbanks(1)
    want = logits(made, CLIP + WORDS, audio_values=fbank)
    lora = peft.LoraConfig(r=2, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    adapted = made
    if way == "get_peft_model":
        adapted = peft.get_peft_model(made, lora)
    elif Version(peft.__version__) < Version(MIN_PEFT_VERSION):  # transformers may ask for a peft still to come
        with pytest.raises(ValueError, match=f"use a version >= {MIN_PEFT_VERSION}"):
            made.add_adapter(lora)
        return
    else:
        made.add_adapter(lora)
    assert torch.equal(logits(adapted, CLIP + WORDS, audio_values=fbank), want)
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 8
    assert all("lora_" in n and "language_model" in n for n in trained)
    ids = torch.tensor([CLIP + WORDS])
    adapted(input_ids=ids, audio_values=fbank, labels=ids).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    assert not torch.allclose(logits(adapted, CLIP + WORDS, audio_values=fbank), want, atol=1e-2)


@pytest.mark.filterwarnings("ignore")  # bitsandbytes speaks about kernels of other machines
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_language_model(bits: int, tmp_path: Path) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    original = small.model("llama", text_width=64)  # rows in multiples of 32, as 4 bits on a CPU want them
    original.save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["audio_tower", "lm_head"],
    )
    made = GamaForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=quantization, dtype=torch.float32, device_map="cpu"
    )
    kind = bnb.nn.Linear8bitLt if bits == 8 else bnb.nn.Linear4bit
    quantized = {n for n, m in made.named_modules() if isinstance(m, kind)}
    linear = {n for n, m in original.language_model.named_modules() if isinstance(m, nn.Linear)} - {"lm_head"}
    assert quantized == {f"language_model.{n}" for n in linear}
    fbank = small.fbanks(1)
    got = logits(made, CLIP + WORDS, audio_values=fbank)
    want = logits(original, CLIP + WORDS, audio_values=fbank)
    assert (got - want).norm() < (0.1 if bits == 8 else 0.6) * want.norm()
    assert generate(made, ROWS, small.fbanks(4)).shape == (4, 8)


def test_positions_in_time_let_the_queries_tell_when(tmp_path: Path) -> None:
    """With them, queries hear whether a feature comes early or late; they start as waves and survive a save."""
    plain = small.model().audio_tower.qformer
    timed_model = small.model(qformer_config=small.QFORMER | {"time_positions": True})
    timed = timed_model.audio_tower.qformer
    features = torch.randn(1, small.TIMES, 32, generator=torch.Generator().manual_seed(1))
    backwards = features.flip(1)
    with torch.no_grad():
        torch.testing.assert_close(plain(features), plain(backwards))
        assert (timed(features) - timed(backwards)).abs().max() > 1e-3
    assert plain.time_positions is None and timed.time_positions is not None
    timed_model.save_pretrained(tmp_path)
    again = GamaForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again.audio_tower.qformer.time_positions, timed.time_positions)
