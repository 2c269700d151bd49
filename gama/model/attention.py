"""The BERT layer parts that the Q-Former and the aggregator share (post-norm, original: ``Qformer.py``)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gama.model.configuration import GamaQFormerConfig
from gama.products import LayerNorm, Linear, attend, linear_gelu


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
        merged = self.proj(attend(query, key, value, rate))
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
