"""The audio tower: fbank -> encoder -> {aggregator, Q-Former} -> projectors -> prefix; in LTU encoder -> projector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gama.model.aggregator import GamaAggregator
from gama.model.configuration import GamaConfig, GamaEncoderConfig, GamaQFormerConfig
from gama.model.encoder import GamaEncoder
from gama.model.pretrained import GamaPreTrainedModel
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
        hidden_states: the input of each encoder layer, then ``encoded``; None unless asked for.
        attentions: attention weights of each encoder layer (B, H, F*T, F*T); None unless asked for.
    """

    prefix: Tensor
    encoded: Tensor
    taps: tuple[Tensor, ...]
    pooled: Tensor
    queries: Tensor
    aggregated: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


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


class GamaAudioTower(GamaPreTrainedModel):
    """The whole audio side of GAMA, or of LTU where the configuration has no Q-Former.

    GAMA's has ``encoder``, ``aggregator``, ``qformer``, ``qformer_projector`` and ``aggregator_projector``; LTU's has
    ``encoder`` and ``projector``, and none of the others. It is built from the whole model's configuration; its own is
    ``audio_config`` there, whose ``attn_implementation`` the encoder and the aggregator follow.
    """

    config_class = GamaEncoderConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    input_modalities = ("audio",)

    def __init__(self, config: GamaConfig) -> None:
        super().__init__(config.audio_config)
        encoder, qformer = config.audio_config, config.qformer_config
        text_width = config.text_config.hidden_size
        self.encoder = GamaEncoder(encoder)
        self.has_qformer = qformer is not None
        if qformer is None:
            self.projector = LinearProjector(encoder.hidden_size, text_width, encoder.layer_norm_eps)
        else:
            self._build_branches(config, qformer)
        self.train(self.training)

    def _build_branches(self, config: GamaConfig, qformer: GamaQFormerConfig) -> None:
        encoder, text_width = config.audio_config, config.text_config.hidden_size
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

    def train(self, mode: bool = True) -> GamaAudioTower:
        """As of every module; norms that this form never reads take no part in training.

        They would get no gradient, which DistributedDataParallel reports as an error.
        """
        if not (self.has_qformer and self.aggregator.reads_taps):
            self.encoder.tap_norms.requires_grad_(False)
        return super().train(mode)

    def get_input_embeddings(self) -> nn.Module:
        """What reads the input: the encoder's patches."""
        return self.encoder.patches

    def forward(
        self, input_features: Tensor, *, taps: bool = False, hidden_states: bool = False, attentions: bool = False
    ) -> TowerOutput:
        """Normalised fbank (B, 1024, 128) -> prefix (B, 96, D), in LTU (B, 32, D), and what lies between."""
        wanted = taps or (self.has_qformer and self.aggregator.reads_taps)
        output = self.encoder(input_features, taps=wanted, hidden_states=hidden_states, attentions=attentions)
        pooled = self.encoder.pool(output.last)
        if self.has_qformer:
            aggregated = self.aggregator(pooled, [self.encoder.pool(t) for t in output.taps])
            queries = self.qformer(pooled)
            prefix = self.join(queries, aggregated)
        else:
            aggregated, queries, prefix = pooled, pooled[:, :0], self.projector(pooled)
        return TowerOutput(
            prefix, output.last, output.taps, pooled, queries, aggregated, output.hidden_states, output.attentions
        )

    def join(self, queries: Tensor, aggregated: Tensor) -> Tensor:
        """Outputs of Q-Former (B, Q, C) and aggregator (B, T, C) -> prefix (B, Q + T, D)."""
        return torch.cat([self.qformer_projector(queries), self.aggregator_projector(aggregated)], dim=1)
