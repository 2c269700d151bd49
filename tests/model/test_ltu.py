"""LTU's form, a configuration without a Q-Former: encoder, pooling over pairs in time, one linear projector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model import small
from torch.nn import functional as F

from gama.model.aggregator import GamaAggregator
from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaFeatureExtractor, GamaProcessor

FORM: dict[str, Any] = {"audio_config": small.ENCODER | {"taps": [], "time_pool": 2}, "qformer_config": None}
SOFT = small.TIMES // 2
CLIP = [small.VOCABULARY] * SOFT
WORDS = small.WORDS


@pytest.fixture(scope="module")
def ltu() -> GamaForConditionalGeneration:
    return small.model(**FORM)


# -- configuration -----------------------------------------------------------------------------------------------------


def test_no_qformer_survives_saving(tmp_path: Path) -> None:
    before = small.config(**FORM)
    assert before.qformer_config is None
    assert before.to_dict()["qformer_config"] is None
    assert GamaConfig(**before.to_dict()).qformer_config is None
    assert GamaConfig.from_dict(before.to_dict()).to_dict() == before.to_dict()
    before.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["qformer_config"] is None
    after = GamaConfig.from_pretrained(tmp_path)
    assert after.qformer_config is None
    assert (after.audio_config.taps, after.audio_config.time_pool) == ([], 2)
    assert after.to_dict() == before.to_dict()


def test_a_qformer_that_is_not_mentioned_is_the_released_one() -> None:
    for config in (GamaConfig(), GamaConfig(qformer_config={})):
        assert isinstance(config.qformer_config, GamaQFormerConfig)
        assert config.qformer_config.num_query_tokens == 32
        assert config.audio_config.time_pool == 1 and config.num_audio_tokens == 96


def test_a_clip_is_32_tokens_in_the_released_size() -> None:
    assert GamaConfig(audio_config=GamaEncoderConfig(taps=[], time_pool=2), qformer_config=None).num_audio_tokens == 32
    assert small.config(**FORM).num_audio_tokens == SOFT
    assert small.config(audio_config=small.ENCODER | {"time_pool": 3}, qformer_config=None).num_audio_tokens == 1


def test_pooling_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="time_pool is 0"):
        GamaEncoderConfig(time_pool=0)


def test_the_released_size() -> None:
    """93.07 M trainable, as LTU's authors print it: encoder, projector, and LoRA of rank 8 on q and v."""
    config = GamaConfig(audio_config=GamaEncoderConfig(taps=[], time_pool=2), qformer_config=None)
    with torch.device("meta"):
        model = GamaForConditionalGeneration(config)
    other_norms = 12 * 4 * 2 * 768  # of another modality: two of three pairs in each layer, dropped here
    lora = 32 * 2 * 2 * 8 * 4096
    assert sum(p.numel() for p in model.audio_tower.parameters()) + other_norms + lora == 93_065_216


# -- what it computes --------------------------------------------------------------------------------------------------


def test_the_tower_is_encoder_and_projector_alone(ltu: GamaForConditionalGeneration) -> None:
    parts = {name.split(".")[1] for name in ltu.state_dict() if name.startswith("audio_tower.")}
    assert parts == {"encoder", "projector"}
    assert not [name for name in ltu.state_dict() if "tap_norms" in name]


def test_there_is_no_aggregator_without_sizes() -> None:
    with pytest.raises(ValueError, match="qformer_config is None"):
        GamaAggregator(small.config(**FORM))


def test_the_prefix(ltu: GamaForConditionalGeneration) -> None:
    """As in LTU's ``LlamaModel.forward``: mean over frequency, over pairs in time, divided, normed, projected."""
    model = small.model(**(FORM | {"audio_config": FORM["audio_config"] | {"feature_divisor": 50.0}}))
    with torch.no_grad():
        heard = model.hear(small.fbanks(2))
        grid = heard.encoded.double().reshape(2, small.BINS // 16, small.TIMES, 32)
        pooled = F.avg_pool2d(grid.mean(dim=1), (2, 1)) / 50
        fc = model.audio_tower.projector.fc
        normed = (pooled - pooled.mean(-1, keepdim=True)) / (pooled.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        want = normed @ fc.weight.double().T + fc.bias.double()
        undivided = ltu.hear(small.fbanks(2)).prefix
    assert heard.prefix.shape == (2, SOFT, 48)
    torch.testing.assert_close(heard.prefix.double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(heard.pooled.double(), pooled, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(heard.prefix, undivided, atol=1e-2), "the division changes nothing"
    assert heard.queries.shape == (2, 0, 32) and heard.aggregated is heard.pooled


def test_what_is_left_over_in_time_is_not_heard() -> None:
    encoder = small.model(audio_config=small.ENCODER | {"taps": [], "time_pool": 3}, qformer_config=None).audio_tower
    features = torch.randn(1, 2 * small.TIMES, 32, generator=torch.Generator().manual_seed(3))
    got = encoder.encoder.pool(features)
    want = features.reshape(1, 2, small.TIMES, 32)[:, :, :3].mean(dim=(1, 2))
    torch.testing.assert_close(got[:, 0], want)


def test_save_and_load(ltu: GamaForConditionalGeneration, tmp_path: Path) -> None:
    ltu.save_pretrained(tmp_path)
    again, info = GamaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    ids, fbank = CLIP + WORDS, small.fbanks(1)
    assert torch.equal(small.logits(again, ids, audio_values=fbank), small.logits(ltu, ids, audio_values=fbank))
    half = GamaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_it_answers_what_the_processor_writes(ltu: GamaForConditionalGeneration, tmp_path: Path) -> None:
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    made = GamaProcessor(
        extractor, small.tokenizer(), audio_token_id=small.VOCABULARY, num_audio_tokens=ltu.config.num_audio_tokens
    )
    made.save_pretrained(tmp_path)
    processor = GamaProcessor.from_pretrained(tmp_path)
    noise = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)).numpy()
    content = [[{"type": "text", "text": "what?"}, *({"type": "audio", "audio": n} for n in noise[:k])] for k in (1, 2)]
    asked = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "sampling_rate": 16_000}
    inputs = [processor.apply_chat_template([{"role": "user", "content": c}], **asked) for c in content]
    assert [int((i["input_ids"] == small.VOCABULARY).sum()) for i in inputs] == [SOFT, 2 * SOFT]
    settings: dict[str, Any] = {
        "max_new_tokens": 4,
        "do_sample": False,
        "eos_token_id": None,
        "num_return_sequences": 1,
    }
    answers = [ltu.generate(**i, **settings)[0, i["input_ids"].shape[1] :].tolist() for i in inputs]
    assert all(len(answer) == 4 for answer in answers)


def test_every_parameter_gets_a_gradient() -> None:
    made = small.model(**FORM).train()
    ids = torch.tensor([CLIP + WORDS])
    made(input_ids=ids, audio_values=small.fbanks(1), labels=ids).loss.backward()
    assert [n for n, p in made.named_parameters() if p.grad is None] == []
