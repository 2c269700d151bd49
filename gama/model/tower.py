"""The audio tower: fbank -> encoder -> {aggregator, Q-Former} -> projectors -> prefix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gama.model.aggregator import GamaAggregator
from gama.model.configuration import GamaConfig
from gama.model.encoder import GamaEncoder
from gama.model.qformer import GamaQFormer


class TowerOutput(NamedTuple):
    """Everything between fbank and prefix, with B clips, F*T patches, T time patches, Q queries.

    Attributes:
        prefix: (B, Q + T, D) soft tokens in the language model's width: Q-Former first, then aggregator.
        encoded: (B, F*T, C) last encoder layer.
        taps: tapped encoder layers (B, F*T, C); empty unless asked for or read by the aggregator.
        pooled: (B, T, C) encoder features averaged over frequency.
        queries: (B, Q, C) Q-Former output.
        aggregated: (B, T, C) aggregator output.
    """

    prefix: Tensor
    encoded: Tensor
    taps: tuple[Tensor, ...]
    pooled: Tensor
    queries: Tensor
    aggregated: Tensor


class Projector(nn.Module):
    """LayerNorm without weights -> Linear -> exact GELU -> Linear: (B, T, C) -> (B, T, D)."""

    def __init__(self, width: int, text_width: int, eps: float) -> None:
        super().__init__()
        self.width = (width,)
        self.eps = eps
        self.fc1 = nn.Linear(width, text_width)
        self.fc2 = nn.Linear(text_width, text_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(F.layer_norm(x, self.width, eps=self.eps))))


class GamaAudioTower(nn.Module):
    """The whole audio side of GAMA."""

    def __init__(self, config: GamaConfig) -> None:
        super().__init__()
        encoder, qformer = config.encoder_config, config.qformer_config
        if encoder.hidden_size != qformer.hidden_size:
            raise ValueError(
                f"encoder width {encoder.hidden_size} and Q-Former width {qformer.hidden_size} differ: "
                "the aggregator needs them equal"
            )
        text_width = config.text_config.hidden_size
        eps = encoder.layer_norm_eps
        self.encoder = GamaEncoder(encoder)
        self.aggregator = GamaAggregator(config)
        self.qformer = GamaQFormer(qformer, encoder.hidden_size, eps, encoder.grid[1])
        self.qformer_projector = Projector(qformer.hidden_size, text_width, eps)
        self.aggregator_projector = Projector(qformer.hidden_size, text_width, eps)

    def forward(self, fbank: Tensor, *, taps: bool = False) -> TowerOutput:
        """Normalised fbank (B, 1024, 128) -> prefix (B, 96, D) and what lies between."""
        encoded, tapped = self.encoder(fbank, taps=taps or self.aggregator.reads_taps)
        pooled = self.encoder.pool(encoded)
        aggregated = self.aggregator(pooled, [self.encoder.pool(t) for t in tapped])
        queries = self.qformer(pooled)
        prefix = torch.cat([self.qformer_projector(queries), self.aggregator_projector(aggregated)], dim=1)
        return TowerOutput(prefix, encoded, tapped, pooled, queries, aggregated)
