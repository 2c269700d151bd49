"""Sizes of the released model, and what a configuration promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from model import small
from parity.fill import canonical
from parity.original import KEYS

from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.gama import GamaForConditionalGeneration

RELEASED_PARAMETERS = 6_995_813_376  # the original's, LoRA included
LORA = 32 * 2 * 2 * 8 * 4096  # layers, q and v, A and B, rank, width
DEAD_WITHOUT_A_PLACE = 14_252_544 - 4 * 768  # tensors that influence nothing, less the two tap norms


def test_default_is_the_released_model() -> None:
    with torch.device("meta"):
        model = GamaForConditionalGeneration(GamaConfig())
    assert sum(p.numel() for p in model.parameters()) == RELEASED_PARAMETERS - LORA - DEAD_WITHOUT_A_PLACE
    assert model.config.aggregator == "released"


def test_paper_form_adds_two_cross_attentions() -> None:
    with torch.device("meta"):
        model = GamaForConditionalGeneration(GamaConfig(aggregator="paper"))
    cross_attention = 2 * (4 * (768 * 768 + 768) + 2 * 768)
    released = RELEASED_PARAMETERS - LORA - DEAD_WITHOUT_A_PLACE
    assert sum(p.numel() for p in model.parameters()) == released + cross_attention


def test_audio_token() -> None:
    assert GamaConfig().num_audio_tokens == 96
    assert GamaConfig().audio_token_id == 32000
    assert small.config().num_audio_tokens == small.SOFT
    assert small.config().audio_token_id == small.VOCABULARY
    assert small.config(audio_token_id=3).audio_token_id == 3


def test_unknown_aggregator_is_refused() -> None:
    with pytest.raises(ValueError, match="'both'.*'released' or 'paper'"):
        GamaConfig(aggregator="both")


def test_widths_that_differ_are_refused() -> None:
    config = GamaConfig(audio_config=small.ENCODER | {"hidden_size": 64}, qformer_config=small.QFORMER)
    with pytest.raises(ValueError, match="64 .*32"), torch.device("meta"):
        GamaForConditionalGeneration(config)


@pytest.mark.parametrize("family", small.FAMILIES)
def test_save_and_load(family: str, tmp_path: Path) -> None:
    before = small.config(family, license="CC-BY-4.0", lineage=[{"recipe": "mini"}])
    before.save_pretrained(tmp_path)
    after = GamaConfig.from_pretrained(tmp_path)
    assert after.to_dict() == before.to_dict()
    assert type(after.text_config) is type(before.text_config)
    assert isinstance(after.audio_config, GamaEncoderConfig)
    assert isinstance(after.qformer_config, GamaQFormerConfig)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gama"


def test_taps_are_copied() -> None:
    taps = [1, 2]
    config = GamaEncoderConfig(taps=taps)
    taps.append(3)
    assert config.taps == [1, 2]
    assert GamaEncoderConfig().taps == [4, 8]


def test_given_configurations_are_kept() -> None:
    text = small.config().text_config
    assert GamaConfig(text_config=text).text_config is text


def test_original_keys_are_counted() -> None:
    """The compact list the parity tests run on holds every parameter once."""
    assert len(KEYS) == len({canonical(key) for key in KEYS}) == 608
