"""Multi-layer aggregator: the last layer's features, refined by middle layers (paper section 3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from gama.model.attention import Attention, FeedForward
from gama.model.configuration import GamaConfig, GamaQFormerConfig


class AggregatorLayer(GradientCheckpointingLayer):
    """B(X; Y) = FFN(CrossAttn(SelfAttn(X), Y)); without Y, FFN(SelfAttn(X))."""

    def __init__(self, config: GamaQFormerConfig, context_width: int | None) -> None:
        super().__init__()
        dropout = config.aggregator_dropout
        self.attention = Attention(config, dropout=dropout)
        self.cross_attention = Attention(config, context_width, dropout) if context_width else None
        self.feed_forward = FeedForward(config, dropout)

    def forward(self, x: Tensor, tap: Tensor | None = None) -> Tensor:
        """x (B, T, D), tap (B, T, D) -> (B, T, D)."""
        x = self.attention(x)
        if self.cross_attention is not None:
            x = self.cross_attention(x, tap)
        return self.feed_forward(x)


class GamaAggregator(nn.Module):
    """Two layers in one of two forms.

    ``released``: the released code computes cross-attention to the taps and then feeds the self-attention's output
    on (``modeling_llama.BertLayer``), so its middle layers never mattered: the dead branch is left out here.
    ``paper``: equation 2, B2(B1(last; tap 4); tap 8), the feed-forward over the cross-attention's output.
    """

    def __init__(self, config: GamaConfig) -> None:
        super().__init__()
        sizes = config.qformer_config
        if sizes is None:
            raise ValueError("an aggregator has the Q-Former's sizes, and qformer_config is None")
        self.reads_taps = config.aggregator == "paper"
        context = config.audio_config.hidden_size if self.reads_taps else None
        self.layers = nn.ModuleList(AggregatorLayer(sizes, context) for _ in range(2))

    def forward(self, last: Tensor, taps: Sequence[Tensor] = ()) -> Tensor:
        """last (B, T, D) and, in the paper's form, two taps (B, T, D) -> (B, T, D)."""
        for index, layer in enumerate(self.layers):
            last = layer(last, taps[index] if self.reads_taps else None)
        return last
