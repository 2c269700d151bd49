"""Audio Q-Former: query tokens read the pooled features by cross-attention (original: ``Qformer.py``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from gama.model.attention import Attention, FeedForward
from gama.model.configuration import GamaQFormerConfig
from gama.model.pretrained import GamaPreTrainedModel
from gama.products import LayerNorm


class QFormerLayer(GradientCheckpointingLayer):
    """BERT layer; cross-attention to the audio in every ``cross_attention_frequency``-th layer, from the first."""

    def __init__(self, config: GamaQFormerConfig, context_width: int, index: int) -> None:
        super().__init__()
        crosses = index % config.cross_attention_frequency == 0
        self.attention = Attention(config)
        self.cross_attention = Attention(config, context_width) if crosses else None
        self.feed_forward = FeedForward(config)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """queries (B, Q, D), features (B, T, C) -> (B, Q, D)."""
        queries = self.attention(queries)
        if self.cross_attention is not None:
            queries = self.cross_attention(queries, features)
        return self.feed_forward(queries)


def waves(length: int, width: int) -> Tensor:
    """Sines and cosines of many periods, from which positions start: (1, length, width)."""
    period = 10_000.0 ** (torch.arange(width // 2) / (width // 2))
    phase = torch.arange(length).unsqueeze(1) / period
    return torch.cat([phase.sin(), phase.cos()], dim=1).unsqueeze(0)


class GamaQFormer(GamaPreTrainedModel):
    """Learned query tokens and the layers that let them read the audio.

    Args:
        config: sizes.
        context_width: width of the pooled features.
        context_eps: epsilon of the LayerNorm over the pooled features (``qformer_proj_norm``).
        time: time patches of a clip.
    """

    config_class = GamaQFormerConfig
    base_model_prefix = ""
    main_input_name = "features"
    input_modalities = ("audio",)

    def __init__(self, config: GamaQFormerConfig, context_width: int, context_eps: float, time: int) -> None:
        super().__init__(config)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, config.hidden_size))
        self.feature_norm = LayerNorm(context_width, eps=context_eps)
        self.time_positions = nn.Parameter(waves(time, context_width)) if config.time_positions else None
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(config, context_width, index) for index in range(config.num_hidden_layers)
        )

    def start_own_weights(self) -> None:
        """Draw the query tokens, and let positions in time start as waves."""
        init.trunc_normal_(self.query_tokens, std=0.02)
        if self.time_positions is not None:
            init.copy_(self.time_positions, waves(*self.time_positions.shape[1:]))

    def forward(self, features: Tensor) -> Tensor:
        """Pooled features (B, T, C) -> (B, Q, D)."""
        features = self.feature_norm(features)
        if self.time_positions is not None:
            features = features + self.time_positions
        queries = self.norm(self.query_tokens.float()).expand(features.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, features)
        return queries
