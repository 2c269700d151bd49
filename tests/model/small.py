"""Small random models and tokenizers that the tests of this package share."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration

QUERIES, TIMES = 3, 4
SOFT = QUERIES + TIMES
"""Soft tokens of a clip in the small models."""

VOCABULARY = 300
FRAMES, BINS = 64, 32

ENCODER: dict[str, Any] = {
    "num_frames": FRAMES,
    "num_mel_bins": BINS,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "taps": [0, 1],
    "feature_divisor": 1.0,
}
QFORMER: dict[str, Any] = {
    "num_query_tokens": QUERIES,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "tied": {"model_type": "qwen2", "num_key_value_heads": 4, "tie_word_embeddings": True},
}


def config(family: str = "llama", *, text_width: int = 48, **changes: Any) -> GamaConfig:
    text: dict[str, Any] = {
        "model_type": family,
        "vocab_size": VOCABULARY,
        "hidden_size": text_width,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    given = {"audio_config": dict(ENCODER), "qformer_config": dict(QFORMER), "aggregator": "paper"}
    return GamaConfig(text_config=text | FAMILIES[family], **(given | changes))


def model(family: str = "llama", *, seed: int = 0, **changes: Any) -> GamaForConditionalGeneration:
    """A random model whose attention is sharp enough that a wrong mask or position changes what it says."""
    torch.manual_seed(seed)
    made = GamaForConditionalGeneration(config(family, **changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, 1.6 / parameter[0].numel() ** 0.5)
    return made


def fbanks(clips: int, seed: int = 1) -> Tensor:
    return torch.randn(clips, FRAMES, BINS, generator=torch.Generator().manual_seed(seed))


def clip(audio_token_id: int = VOCABULARY) -> list[int]:
    return [audio_token_id] * SOFT


CLIP = clip()
WORDS = [1, 40, 41, 42, 43, 90]
ROWS = [CLIP + [1, 50, 51, 52, 53, 54], CLIP + [1, 60] + CLIP + [61], [1, 70, 71], CLIP + [1, 80]]
"""Prompts of different lengths with one, two, no and one clip."""


def left_padded(rows: list[list[int]], pad: int = 0) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@torch.no_grad()
def logits(model: GamaForConditionalGeneration, ids: list[int] | Tensor, **given: Any) -> Tensor:
    rows = ids if isinstance(ids, Tensor) else torch.tensor([ids])
    return model(input_ids=rows, **given).logits


def generate(model: GamaForConditionalGeneration, rows: list[list[int]], fbank: Tensor | None, **given: Any) -> Tensor:
    """The new ids of each row, padded on the left where they differ; greedy unless told otherwise."""
    ids, mask = left_padded(rows)
    audio = {} if fbank is None else {"input_features": fbank}
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | given
    out = model.generate(input_ids=ids, attention_mask=mask, **audio, **settings)
    return out[:, ids.shape[1] :]


def tokenizer(*, bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level, one id a byte, so that every text can be written and read back."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *alphabet]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
