"""transformers' own suites for models and configurations, over a small GAMA (a tester as Qwen2-Audio's has).

Every form is tested: a placeholder inside the vocabulary and beyond it, the released aggregator and the paper's.
GenerationTesterMixin runs as well where ``TRANSFORMERS_TESTS`` names a checkout (see fetch.py).
"""

from __future__ import annotations

import copy
import os
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

if not os.environ.get("GAMA_PEERS"):
    pytest.skip("fetches transformers' suites: make peers", allow_module_level=True)

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from fetch import fetch  # noqa: E402
from model import small  # noqa: E402

import gama.model  # noqa: E402, F401
from gama.model.configuration import GamaConfig  # noqa: E402
from gama.model.gama import GamaForConditionalGeneration  # noqa: E402
from gama.model.headless import GamaModel  # noqa: E402

fetch()
with patch.object(pytest.mark, "_config", None), warnings.catch_warnings():  # their marks are not ours to register
    warnings.simplefilter("ignore")
    from transformers_tests import test_modeling_common as common  # type: ignore[import-not-found]
    from transformers_tests.generation.test_utils import GenerationTesterMixin  # type: ignore[import-not-found]
    from transformers_tests.test_configuration_common import ConfigTester  # type: ignore[import-not-found]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # their warnings are theirs

VOCABULARY, LENGTH, BATCH = 99, 24, 3
WITH_EMBEDDINGS = ("test_inputs_embeds", "test_resize", "test_generate_from_inputs_embeds")
"""Tests that look every id up in the table of embeddings, or cut ids to a smaller one: no place beyond it survives."""


class SmallGama:
    """Sizes, a configuration and inputs, under the names that the suites read."""

    base_model_class = GamaModel
    causal_lm_class = GamaForConditionalGeneration
    is_training = True
    batch_size = BATCH
    seq_length = encoder_seq_length = LENGTH
    hidden_size, num_attention_heads, num_hidden_layers = 32, 4, 2
    vocab_size = VOCABULARY
    audio_config = {**small.ENCODER, "num_hidden_layers": 2}

    def __init__(self, parent: unittest.TestCase, placeholder: int, aggregator: str) -> None:
        self.parent, self.placeholder, self.aggregator = parent, placeholder, aggregator
        self.has_clips = True

    def get_config(self) -> GamaConfig:
        text = {
            "model_type": "qwen2",
            "vocab_size": VOCABULARY,
            "hidden_size": self.hidden_size,
            "intermediate_size": 37,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
        return GamaConfig(
            text_config=text,
            audio_config=copy.deepcopy(self.audio_config),
            qformer_config=dict(small.QFORMER),
            aggregator=self.aggregator,
            audio_token_id=self.placeholder,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[GamaConfig, dict[str, Any]]:
        config = self.get_config()
        ids = common.ids_tensor([self.batch_size, LENGTH], VOCABULARY - 5) + 4  # no special token, no placeholder
        mask = torch.ones_like(ids)
        mask[:, :1] = 0
        if not self.has_clips:
            return config, {"input_ids": ids, "attention_mask": mask}
        ids[:, 1 : 1 + small.SOFT] = self.placeholder
        clips = common.floats_tensor([self.batch_size, small.FRAMES, small.BINS])
        return config, {"input_features": clips, "input_ids": ids, "attention_mask": mask}


class Suites(common.ModelTesterMixin, GenerationTesterMixin):
    """What every form is put through."""

    all_model_classes = (GamaModel, GamaForConditionalGeneration)
    _is_composite = True
    additional_model_inputs = ("input_features",)
    placeholder = 3
    aggregator = "paper"

    def setUp(self) -> None:
        self.model_tester = SmallGama(self, self.placeholder, self.aggregator)
        test = self._testMethodName  # type: ignore[attr-defined]
        if test.startswith("test_eager_matches"):
            self.model_tester.batch_size = 7  # as many rows as that test makes of them, with random ids
        if test.startswith("test_model_rope_scaling"):
            drawn = common.ids_tensor  # random ids alone, which must be text
            patch.object(common, "ids_tensor", lambda *shape: drawn(*shape).clamp(min=4)).start()
            self.addCleanup(patch.stopall)  # type: ignore[attr-defined]
        if self.placeholder >= VOCABULARY and test.startswith(WITH_EMBEDDINGS):
            self.model_tester.has_clips = False
        self.config_tester = ConfigTester(self, config_class=GamaConfig, has_text_modality=False)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class TestInsidePaper(Suites, unittest.TestCase):
    pass


class TestInsideReleased(Suites, unittest.TestCase):
    aggregator = "released"


class TestBeyondPaper(Suites, unittest.TestCase):
    placeholder = VOCABULARY


class TestBeyondReleased(Suites, unittest.TestCase):
    placeholder = VOCABULARY
    aggregator = "released"
