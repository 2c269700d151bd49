"""transformers' ProcessorTesterMixin over GamaProcessor, with the tester class that Qwen2-Audio's is.

Our prompt and a chat template of another model, a placeholder inside, right behind and far beyond the vocabulary.
"""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from transformers import AutoTokenizer, testing_utils

if not os.environ.get("GAMA_PEERS"):
    pytest.skip("fetches transformers' suites: make peers", allow_module_level=True)

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from fetch import fetch  # noqa: E402
from model import small  # noqa: E402

import gama  # noqa: E402
from gama.model.processing import GamaFeatureExtractor, GamaProcessor  # noqa: E402

fetch()
with patch.object(testing_utils, "is_librosa_available", lambda: True):  # ours reads and resamples by itself
    from transformers_tests import test_processing_common as common  # type: ignore[import-not-found]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # transformers' own, of its chat templates
    pytest.mark.filterwarnings("ignore:.*unclosed file.*:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]

PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if 'audio' in content or 'audio_url' in content or content['type'] == 'audio' %}<audio>\n"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-Audio's chat template, with our placeholder."""


@pytest.fixture(scope="module", autouse=True)
def clips(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Files in the place of those that the suite fetches."""
    folder = tmp_path_factory.mktemp("clips")
    names = [str(folder / f"{seed}.wav") for seed in range(2)]
    for seed, name in enumerate(names):
        soundfile.write(name, 0.1 * np.random.default_rng(seed).standard_normal(22_050), 44_100)
    with patch.dict(common.MODALITY_INPUT_DATA, {"audio": names}):
        # the suite reads the list when a class is made, too
        yield


class _Tester(common.ProcessorTesterMixin):  # type: ignore[misc]
    processor_class = GamaProcessor
    settings: dict[str, Any] = {"num_audio_tokens": small.SOFT}

    @classmethod
    def _setup_feature_extractor(cls) -> GamaFeatureExtractor:
        return GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return small.tokenizer()

    @classmethod
    def prepare_processor_dict(cls) -> dict[str, Any]:
        return dict(cls.settings)


class TestBehind(_Tester, unittest.TestCase):
    """The first id behind the tokenizer's: the released form."""


class TestInside(_Tester, unittest.TestCase):
    """A token of the vocabulary: gama-mini's form, with its merges."""

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return AutoTokenizer.from_pretrained(gama.model_folder())


class TestBeyond(_Tester, unittest.TestCase):
    """An id that the tokenizer does not reach."""

    settings = {"num_audio_tokens": small.SOFT, "audio_token_id": 900}


class TestChatTemplate(_Tester, unittest.TestCase):
    """Qwen2-Audio's template and, as there, a tokenizer that begins texts with nothing."""

    settings = {"num_audio_tokens": small.SOFT, "chat_template": PARTS}

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return small.tokenizer(bos=False)


class TestChatTemplateInside(TestInside):
    """A template that writes the beginning itself, as LLaMA's do."""

    settings = {"num_audio_tokens": small.SOFT, "chat_template": "{{ bos_token }}" + PARTS}
