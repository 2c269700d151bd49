"""The audio tower: fbank -> encoder -> {aggregator, Q-Former} -> projectors -> prefix; in LTU encoder -> projector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gama.model.aggregator import GamaAggregator
from gama.model.configuration import GamaConfig, GamaQFormerConfig
from gama.model.encoder import GamaEncoder
from gama.model.qformer import GamaQFormer
from gama.products import Linear, linear_gelu


class TowerOutput(NamedTuple):
    """Everything between fbank and prefix, with B clips, F*T patches, T pooled features in time, Q queries.

    Without a Q-Former there are no queries (Q is 0), and nothing aggregates: ``aggregated`` is ``pooled``.

    Attributes:
        prefix: (B, Q + T, D) soft tokens in the language model's width: Q-Former first, then aggregator.
        encoded: (B, F*T, C) last encoder layer.
        taps: tapped encoder layers (B, F*T, C); empty unless asked for or read by the aggregator.
        pooled: (B, T, C) encoder features averaged over frequency, in LTU over pairs in time as well.
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
        self.fc1 = Linear(width, text_width)
        self.fc2 = Linear(text_width, text_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(linear_gelu(self.fc1, F.layer_norm(x, self.width, eps=self.eps)))


class LinearProjector(nn.Module):
    """LTU's: LayerNorm without weights -> Linear: (B, T, C) -> (B, T, D) (original: ``audio_proj``)."""

    def __init__(self, width: int, text_width: int, eps: float) -> None:
        super().__init__()
        self.width = (width,)
        self.eps = eps
        self.fc = Linear(width, text_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.layer_norm(x, self.width, eps=self.eps))


class GamaAudioTower(nn.Module):
    """The whole audio side of GAMA, or of LTU where the configuration has no Q-Former.

    GAMA's has ``encoder``, ``aggregator``, ``qformer``, ``qformer_projector`` and ``aggregator_projector``; LTU's has
    ``encoder`` and ``projector``, and none of the others.
    """

    def __init__(self, config: GamaConfig) -> None:
        super().__init__()
        encoder, qformer = config.encoder_config, config.qformer_config
        text_width = config.text_config.hidden_size
        self.encoder = GamaEncoder(encoder)
        self.has_qformer = qformer is not None
        if qformer is None:
            self.projector = LinearProjector(encoder.hidden_size, text_width, encoder.layer_norm_eps)
        else:
            self._build_branches(config, qformer)

    def _build_branches(self, config: GamaConfig, qformer: GamaQFormerConfig) -> None:
        encoder, text_width = config.encoder_config, config.text_config.hidden_size
        if encoder.hidden_size != qformer.hidden_size:
            raise ValueError(
                f"encoder width {encoder.hidden_size} and Q-Former width {qformer.hidden_size} differ: "
                "the aggregator needs them equal"
            )
        eps = encoder.layer_norm_eps
        self.aggregator = GamaAggregator(config)
        self.qformer = GamaQFormer(qformer, encoder.hidden_size, eps, encoder.pooled_time)
        self.qformer_projector = Projector(qformer.hidden_size, text_width, eps)
        self.aggregator_projector = Projector(qformer.hidden_size, text_width, eps)

    def forward(self, fbank: Tensor, *, taps: bool = False) -> TowerOutput:
        """Normalised fbank (B, 1024, 128) -> prefix (B, 96, D), in LTU (B, 32, D), and what lies between."""
        encoded, tapped = self.encoder(fbank, taps=taps or (self.has_qformer and self.aggregator.reads_taps))
        pooled = self.encoder.pool(encoded)
        if not self.has_qformer:
            return TowerOutput(self.projector(pooled), encoded, tapped, pooled, pooled[:, :0], pooled)
        aggregated = self.aggregator(pooled, [self.encoder.pool(t) for t in tapped])
        queries = self.qformer(pooled)
        return TowerOutput(self.join(queries, aggregated), encoded, tapped, pooled, queries, aggregated)

    def join(self, queries: Tensor, aggregated: Tensor) -> Tensor:
        """Outputs of Q-Former (B, Q, C) and aggregator (B, T, C) -> prefix (B, Q + T, D)."""
        return torch.cat([self.qformer_projector(queries), self.aggregator_projector(aggregated)], dim=1)
