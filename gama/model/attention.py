"""Attention of the audio tower, and the BERT layer parts that its Q-Former and aggregator share (post-norm)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gama.model.attending import learn_to_attend, learns_slowly
from gama.model.configuration import GamaQFormerConfig
from gama.products import LayerNorm, Linear, attend, linear_gelu


def attend_by(
    module: nn.Module,
    config: PreTrainedConfig,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    dropout: float = 0.0,
    weights: bool = False,
    blocks: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of every head to everything, by the implementation that the configuration names.

    ``sdpa`` is PyTorch's, or oneDNN's products where they are faster; ``eager`` are plain products; whatever else
    transformers knows (flash attention, flex) is called through its attention interface.

    Args:
        module: the layer part that attends, for transformers' interface.
        config: of the part of the tower, with ``attn_implementation``.
        query: (B, H, Q, D).
        key: (B, H, T, D), as ``value``.
        dropout: on the attention weights.
        weights: whether the attention weights are wanted; only plain products have them.
        blocks: whether training on a CPU in bfloat16 may take products of whole blocks, without dropout.

    Returns:
        (B, Q, H * D), and the attention weights (B, H, Q, T) where they are wanted.
    """
    form = config._attn_implementation or "sdpa"
    if weights or form == "eager":
        chances = torch.softmax(query * query.shape[-1] ** -0.5 @ key.transpose(2, 3), dim=-1, dtype=torch.float32)
        chances = chances.to(query.dtype)
        mixed = F.dropout(chances, dropout, dropout > 0) @ value
        return mixed.transpose(1, 2).flatten(2), chances if weights else None
    if form == "sdpa":
        if blocks and learns_slowly(query):
            return learn_to_attend(query, key, value), None
        return attend(query, key, value, dropout), None
    mixed, _ = ALL_ATTENTION_FUNCTIONS[form](
        module, query, key, value, None, dropout=dropout, scaling=query.shape[-1] ** -0.5, is_causal=False
    )
    return mixed.flatten(2), None


class Attention(nn.Module):
    """Multi-head attention with residual and LayerNorm after it: LN(x + proj(attend(x, context))).

    Args:
        config: sizes.
        context_width: width of keys and values' source; None for self-attention.
        dropout: on the attention weights and the output, while training.
    """

    def __init__(self, config: GamaQFormerConfig, context_width: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.is_causal = False
        self.heads = config.num_attention_heads
        self.dropout = dropout
        self.query = Linear(width, width)
        self.key = Linear(context_width or width, width)
        self.value = Linear(context_width or width, width)
        self.proj = Linear(width, width)
        self.norm = LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, Q, D), context (B, T, C) -> (B, Q, D)."""
        source = x if context is None else context
        rate = self.dropout if self.training else 0.0
        query, key, value = (self._split(t) for t in (self.query(x), self.key(source), self.value(source)))
        merged = self.proj(attend_by(self, self.config, query, key, value, dropout=rate)[0])
        return self.norm(F.dropout(merged, self.dropout, self.training) + x)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU, with residual and LayerNorm after: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: GamaQFormerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.fc2(linear_gelu(self.fc1, x))
        return self.norm(F.dropout(inner, self.dropout, self.training) + x)
