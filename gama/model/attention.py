"""The BERT layer parts that the Q-Former and the aggregator share (post-norm, original: ``Qformer.py``)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gama.model.configuration import GamaQFormerConfig


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
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width or width, width)
        self.value = nn.Linear(context_width or width, width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, Q, D), context (B, T, C) -> (B, Q, D)."""
        source = x if context is None else context
        rate = self.dropout if self.training else 0.0
        heard = F.scaled_dot_product_attention(
            self._split(self.query(x)), self._split(self.key(source)), self._split(self.value(source)), dropout_p=rate
        )
        merged = self.proj(heard.transpose(1, 2).flatten(2))
        return self.norm(F.dropout(merged, self.dropout, self.training) + x)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU, with residual and LayerNorm after: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: GamaQFormerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.fc2(F.gelu(self.fc1(x)))
        return self.norm(F.dropout(inner, self.dropout, self.training) + x)
