"""The original's model written plainly: what its training step computes, for benchmarks/train_step.py to compare with.

Same mathematics as ``gama.model`` and the same names for the weights both have, so that ours can be loaded into it; but
computed as the released code does (Sreyan88/GAMA 041c3a6, with timm 0.4.5 and its forks of transformers and peft):

- attention as two matrix products and a softmax over all scores, in encoder, Q-Former, aggregator and language model;
- six LayerNorms in every encoder block whose sum counts 0 times;
- two tapped layers and the aggregator's cross-attention to them, whose output nothing reads;
- the language model's product of scores and values twice, and logits at every position of the text.
"""

from __future__ import annotations

import functools
import math
import operator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.tower import Projector

DEAD = ("unread_norms", "tap_norms", "dead_cross_attention")
"""Parts of names of the weights that nothing depends on."""


class EncoderBlock(nn.Module):
    def __init__(self, config: GamaEncoderConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.unread_norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(4))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        unread = [norm(x) for norm in (self.norm1, self.norm2, *self.unread_norms)]
        return x + 0.0 * functools.reduce(operator.add, unread)

    def attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        size = width // self.heads
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        scores = ((q @ k.transpose(-2, -1)) * size**-0.5).softmax(dim=-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(batch, length, width))


class Encoder(nn.Module):
    def __init__(self, config: GamaEncoderConfig) -> None:
        super().__init__()
        self.config = config
        frequency, time = config.grid
        width, eps = config.hidden_size, config.layer_norm_eps
        self.patches = nn.ModuleDict({"proj": nn.Conv2d(1, width, config.patch_size, stride=config.patch_size)})
        self.position = nn.Parameter(torch.zeros(1, frequency * time, width))
        self.modality = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.tap_norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in config.taps)

    def forward(self, fbank: Tensor) -> list[Tensor]:
        """fbank (B, frames, bins) -> pooled features (B, T, D) of the last layer and of each tap."""
        x = self.patches["proj"](fbank.unsqueeze(1).transpose(2, 3)).flatten(2).transpose(1, 2)
        x = x + self.position + self.modality
        kept = {}
        for index, layer in enumerate(self.layers):
            x = layer(x)
            kept[index] = x
        taps = [norm(kept[i]) for norm, i in zip(self.tap_norms, self.config.taps, strict=True)]
        return [self.pool(features) for features in (self.norm(x), *taps)]

    def pool(self, features: Tensor) -> Tensor:
        frequency, time = self.config.grid
        grid = features.reshape(features.shape[0], frequency, time, -1)
        return grid.mean(dim=1) / self.config.feature_divisor


class BertAttention(nn.Module):
    def __init__(self, config: GamaQFormerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        q, k, v = (self._split(part) for part in (self.query(x), self.key(source), self.value(source)))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores + torch.zeros(x.shape[0], 1, 1, source.shape[1])  # its mask of ones
        heard = self.dropout(scores.softmax(dim=-1)) @ v
        merged = heard.permute(0, 2, 1, 3).contiguous().flatten(2)
        return self.norm(self.dropout(self.proj(merged)) + x)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).permute(0, 2, 1, 3)


class BertFeedForward(nn.Module):
    def __init__(self, config: GamaQFormerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.dropout(self.fc2(F.gelu(self.fc1(x)))) + x)


class AggregatorLayer(nn.Module):
    def __init__(self, config: GamaQFormerConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config, config.aggregator_dropout)
        self.dead_cross_attention = BertAttention(config, config.aggregator_dropout)
        self.feed_forward = BertFeedForward(config, config.aggregator_dropout)

    def forward(self, x: Tensor, tap: Tensor) -> Tensor:
        x = self.attention(x)
        self.dead_cross_attention(x, tap)
        return self.feed_forward(x)


class QFormerLayer(nn.Module):
    def __init__(self, config: GamaQFormerConfig, crosses: bool) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.cross_attention = BertAttention(config) if crosses else None
        self.feed_forward = BertFeedForward(config)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        queries = self.attention(queries)
        if self.cross_attention is not None:
            queries = self.cross_attention(queries, features)
        return self.feed_forward(queries)


class QFormer(nn.Module):
    def __init__(self, config: GamaQFormerConfig, eps: float) -> None:
        super().__init__()
        width = config.hidden_size
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, width))
        self.feature_norm = nn.LayerNorm(width, eps=eps)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        crossing = [index % config.cross_attention_frequency == 0 for index in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList(QFormerLayer(config, crosses) for crosses in crossing)

    def forward(self, features: Tensor) -> Tensor:
        features = self.feature_norm(features)
        queries = self.norm(self.query_tokens.expand(features.shape[0], -1, -1))
        for layer in self.layers:
            queries = layer(queries, features)
        return queries


class AudioTower(nn.Module):
    def __init__(self, config: GamaConfig) -> None:
        super().__init__()
        sizes, eps = config.qformer_config, config.audio_config.layer_norm_eps
        width = config.text_config.hidden_size
        self.encoder = Encoder(config.audio_config)
        self.aggregator = nn.ModuleDict({"layers": nn.ModuleList(AggregatorLayer(sizes) for _ in range(2))})
        self.qformer = QFormer(sizes, eps)
        self.qformer_projector = Projector(sizes.hidden_size, width, eps)
        self.aggregator_projector = Projector(sizes.hidden_size, width, eps)

    def forward(self, fbank: Tensor) -> Tensor:
        last, *taps = self.encoder(fbank)
        queries, x = self.qformer(last), last
        for layer, tap in zip(self.aggregator["layers"], taps, strict=True):
            x = layer(x, tap)
        return torch.cat([self.qformer_projector(queries), self.aggregator_projector(x)], dim=1)


class LoraLinear(nn.Module):
    def __init__(self, width: int, r: int = 8, alpha: int = 16, dropout: float = 0.05) -> None:
        super().__init__()
        self.base_layer = nn.Linear(width, width, bias=False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(width, r, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(r, width, bias=False)})
        self.dropout, self.scale = nn.Dropout(dropout), alpha / r

    def forward(self, x: Tensor) -> Tensor:
        low = self.lora_B["default"](self.lora_A["default"](self.dropout(x)))
        return self.base_layer(x) + low * self.scale


class RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + self.eps)).to(x.dtype)


class LlamaAttention(nn.Module):
    def __init__(self, width: int, heads: int, lora: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.v_proj = (
            LoraLinear(width) if lora else nn.Linear(width, width, bias=False) for _ in range(2)
        )
        self.k_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (_turned(part, *turn) for part in (q, k))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + mask
        scores = torch.max(scores, torch.tensor(torch.finfo(scores.dtype).min))
        scores = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        _ = scores @ v  # the released fork computes it twice
        return self.o_proj((scores @ v).transpose(1, 2).reshape(batch, length, width))


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-right, left], dim=-1) * sine


class LlamaMlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, eps: float, lora: bool) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(width, heads, lora)
        self.mlp = LlamaMlp(width, inner)
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(width, eps), RmsNorm(width, eps)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), mask, turn)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, config: GamaConfig, lora: bool) -> None:
        super().__init__()
        text = config.text_config
        width, eps = text.hidden_size, text.rms_norm_eps
        layers = [
            LlamaLayer(width, text.intermediate_size, text.num_attention_heads, eps, lora)
            for _ in range(text.num_hidden_layers)
        ]
        parts = {"embed_tokens": nn.Embedding(text.vocab_size, width), "layers": nn.ModuleList(layers)}
        self.model = nn.ModuleDict(parts | {"norm": RmsNorm(width, eps)})
        self.lm_head = nn.Linear(width, text.vocab_size, bias=False)
        self.head_size = width // text.num_attention_heads

    def forward(self, embeds: Tensor) -> Tensor:
        """(B, T, D) -> hidden states (B, T, D), every position looking back."""
        length = embeds.shape[1]
        mask = torch.full((length, length), torch.finfo(embeds.dtype).min).triu(1)
        frequency = 10_000.0 ** (-torch.arange(0, self.head_size, 2) / self.head_size)
        phase = torch.arange(length).unsqueeze(1) * torch.cat([frequency, frequency])
        turn = phase.cos(), phase.sin()
        for layer in self.model["layers"]:
            embeds = layer(embeds, mask, turn)
        return self.model["norm"](embeds)


class PlainGama(nn.Module):
    """Audio tower and language model; ``lora`` puts adapters on q_proj and v_proj."""

    def __init__(self, config: GamaConfig, *, lora: bool) -> None:
        super().__init__()
        self.audio_tower = AudioTower(config)
        self.language_model = Llama(config, lora)

    def forward(self, fbank: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
        """fbank (B, frames, bins), ids and labels (B, T) of the text -> mean cross-entropy of the next ids."""
        prefix = self.audio_tower(fbank)
        embeds = torch.cat([prefix, self.language_model.model["embed_tokens"](ids)], dim=1)
        hidden = self.language_model(embeds)
        logits = self.language_model.lm_head(hidden[:, prefix.shape[1] :])
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
