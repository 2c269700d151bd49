"""How much there is to compute and to read, counted from a model's configuration. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
# NF4 with double quantization: 4 bits, an 8-bit scale for 64 weights, a 32-bit one for 256 of those
_QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}


def tower_operations(config: Config) -> float:
    """Floating-point operations from fbank to prefix for one clip: 109.4e9 for the released sizes.

    A multiplication and an addition are two; products and convolutions alone. The released code has 0.6e9 more, of the
    cross-attention whose result it drops.
    """
    encoder = config.get("audio_config") or config["encoder_config"]  # the name in folders of before
    qformer = config["qformer_config"]
    width = config["text_config"]["hidden_size"]
    count = _encoder(encoder)
    pooled = encoder["num_frames"] // encoder["patch_size"] // encoder["time_pool"]
    if qformer is None:
        return count + 2.0 * pooled * encoder["hidden_size"] * width
    size, queries, inner = qformer["hidden_size"], qformer["num_query_tokens"], qformer["intermediate_size"]
    layers = qformer["num_hidden_layers"]
    crossing = -(-layers // qformer["cross_attention_frequency"])
    count += layers * (_attention(queries, queries, size) + 4.0 * queries * size * inner)
    count += crossing * _attention(queries, pooled, size)
    count += 2 * (_attention(pooled, pooled, size) + 4.0 * pooled * size * inner)
    count += 2 * _attention(pooled, pooled, size) if config["aggregator"] == "paper" else 0.0
    return count + 2.0 * (queries + pooled) * (size * width + width * width)


def _encoder(encoder: Config) -> float:
    size, side = encoder["hidden_size"], encoder["patch_size"]
    patches = (encoder["num_mel_bins"] // side) * (encoder["num_frames"] // side)
    layer = _attention(patches, patches, size) + 4.0 * patches * size * encoder["intermediate_size"]
    return _stem(encoder) + encoder["num_hidden_layers"] * layer


def _stem(encoder: Config) -> float:
    pixels = encoder["num_mel_bins"] * encoder["num_frames"]
    if encoder["stem"] != "conv":
        return 2.0 * pixels * encoder["hidden_size"]
    widths = [1, *encoder["stem_channels"], encoder["hidden_size"]]
    count = 0.0
    for stage, (narrow, wide) in enumerate(zip(widths, widths[1:], strict=False)):
        kernel = 5 if stage == 0 else 3
        count += 2.0 * pixels / 4 ** (stage + 1) * narrow * wide * kernel**2
    return count


def _attention(queries: int, keys: int, size: int) -> float:
    """Four products with weights, and the two of queries with keys and values."""
    return 4.0 * queries * size**2 + 4.0 * keys * size**2 + 4.0 * queries * keys * size


def fbank_operations(seconds: float) -> float:
    """Operations from a waveform at 16 kHz to its log-mel: for every 10 ms a real FFT of 512, powers, and mel bins.

    A frequency lies in two mel bins at most.
    """
    transform = 2.5 * 512 * math.log2(512)
    return 100.0 * seconds * (transform + 3 * 257 + 2 * 2 * 257)


def text_parameters(text: Config) -> tuple[float, float] | None:
    """Weights of the layers of a LLaMA-like language model, and of its last product; None for another kind."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    if text.get("model_type") != "llama" or any(name not in text for name in names):
        return None
    size, inner, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    shared = (text.get("num_key_value_heads") or heads) / heads
    layer = 2.0 * size**2 * (1 + shared) + 3.0 * size * inner
    return text["num_hidden_layers"] * layer, float(text["vocab_size"]) * size


def prefill_operations(text: Config, tokens: int) -> float | None:
    """Operations to read a prompt and score the token after it."""
    weights = text_parameters(text)
    if weights is None:
        return None
    # causal: a token looks at half of the others
    attention = 2.0 * tokens**2 * text["hidden_size"] * text["num_hidden_layers"]
    return 2.0 * tokens * weights[0] + 2.0 * weights[1] + attention


def token_bytes(text: Config, dtype: str, quantization: str) -> float | None:
    """Bytes of weights that every new token has to read; the key-value cache is left out."""
    weights = text_parameters(text)
    if weights is None or dtype not in _BYTES:
        return None
    return weights[0] * _QUANTIZED_BYTES.get(quantization, _BYTES[dtype]) + weights[1] * _BYTES[dtype]
