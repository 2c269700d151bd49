"""CAV-MAE audio encoder: fbank (B, 1024, 128) -> patches -> 12 transformer layers (original: ``cavmae.py``)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from gama.model.attention import attend_by
from gama.model.configuration import GamaEncoderConfig
from gama.products import LayerNorm, Linear, direct, linear_gelu, product


class EncoderOutput(NamedTuple):
    """What the encoder computed.

    Attributes:
        last: (B, F*T, D) normalised features of the last layer, frequency-major (token = f * T + t).
        taps: the tapped layers' features, each (B, F*T, D) and normalised; empty unless asked for.
        hidden_states: the input of each layer, then ``last``, each (B, F*T, D); None unless asked for.
        attentions: the attention weights of each layer (B, H, F*T, F*T); None unless asked for.
    """

    last: Tensor
    taps: tuple[Tensor, ...]
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LinearPatches(nn.Module):
    """One convolution per square patch, as in ViT: (B, 1, 128, 1024) -> (B, D, 8, 64)."""

    def __init__(self, config: GamaEncoderConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, image: Tensor) -> Tensor:
        # few products on which everything rests: in float32 whatever the weights are held in
        weight, bias = self.proj.weight.float(), self.proj.bias
        if bias is None or not direct(image.float(), weight):
            return self.proj(image.to(self.proj.weight.dtype))
        side = weight.shape[-1]
        patches = image.float().squeeze(1).unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
        seen = product(patches.flatten(3), weight.flatten(1))
        return (seen + bias).permute(0, 3, 1, 2)


class StemNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics stand still where its weights do.

    An adapter around a frozen model trains in train mode; statistics that moved with its batches would change the
    model under the adapter and would not be saved with it. Statistics follow the weights' precision: peft brings the
    parameters of a quantized model to float32, and leaves buffers as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and (self.weight.requires_grad or self.bias.requires_grad):
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        mean, variance = (statistic.to(self.weight.dtype) for statistic in (self.running_mean, self.running_var))
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)


class ConvStem(nn.Module):
    """A small stack of convolutions to the same grid: each stage halves both sides.

    With little data and compute it hears far more than linear patches do.
    """

    def __init__(self, config: GamaEncoderConfig) -> None:
        super().__init__()
        widths = [1, *config.stem_channels, config.hidden_size]
        stages = len(widths) - 1
        if 2**stages != config.patch_size:
            raise ValueError(
                f"a conv stem of {stages} stages makes patches of {2**stages}, "
                f"patch_size is {config.patch_size}: give {config.patch_size.bit_length() - 2} stem_channels"
            )
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 5 if i == 0 else 3, stride=2, padding=2 if i == 0 else 1, bias=False)
            for i in range(stages)
        )
        self.norms = nn.ModuleList(StemNorm(width) for width in widths[1:])

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(next(self.convs.parameters()).dtype).contiguous(memory_format=torch.channels_last)
        last = len(self.convs) - 1
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x))
            x = x if index == last else F.relu(x)
        return x


class EncoderLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer (timm's ViT block): (B, T, D) -> (B, T, D), and attention weights if asked for."""

    def __init__(self, config: GamaEncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.is_causal = False
        self.heads = config.num_attention_heads
        self.dropout = config.dropout
        self.norm1 = LayerNorm(width, eps=config.layer_norm_eps)
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        self.norm2 = LayerNorm(width, eps=config.layer_norm_eps)
        self.fc1 = Linear(width, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, width)

    def forward(self, x: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D) -> (B, T, D), and the attention weights (B, H, T, T) where they are wanted."""
        mixed, attention = self._attend(self.norm1(x), weights)
        x = x + F.dropout(mixed, self.dropout, self.training)
        x = x + F.dropout(self.fc2(linear_gelu(self.fc1, self.norm2(x))), self.dropout, self.training)
        return x, attention

    def _attend(self, x: Tensor, weights: bool) -> tuple[Tensor, Tensor | None]:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed, attention = attend_by(self, self.config, q, k, v, weights=weights, blocks=True)
        return self.proj(mixed), attention


class GamaEncoder(nn.Module):
    """The audio encoder with its taps.

    The released model: 11 layers of its own plus the joint layer called with the audio norms, no class token,
    LayerNorm epsilon 1e-5.
    """

    def __init__(self, config: GamaEncoderConfig) -> None:
        super().__init__()
        self.config = config
        frequency, time = config.grid
        self.patches = ConvStem(config) if config.stem == "conv" else LinearPatches(config)
        self.position = nn.Parameter(torch.zeros(1, frequency * time, config.hidden_size))
        self.modality = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.tap_norms = nn.ModuleList(LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in config.taps)

    def start_own_weights(self) -> None:
        """Draw the parameters that no layer holds."""
        init.trunc_normal_(self.position, std=0.02)
        init.trunc_normal_(self.modality, std=0.02)

    def forward(
        self,
        fbank: Tensor,
        *,
        taps: bool = False,
        first_patch: int = 0,
        hidden_states: bool = False,
        attentions: bool = False,
    ) -> EncoderOutput:
        """Encode.

        Args:
            fbank: (B, 1024, 128) normalised log-mel, or fewer frames (a multiple of the patch size): a crop.
            taps: whether to return the tapped layers too.
            first_patch: the time patch at which a crop begins.
            hidden_states: whether to return what goes into each layer too.
            attentions: whether to return the attention weights of each layer too.

        Returns:
            ``last`` (B, F*T, D) and the taps in the configured order.
        """
        grid = self.patches(fbank.transpose(1, 2).unsqueeze(1))
        x = grid.flatten(2).transpose(1, 2) + self._positions(first_patch, grid.shape[-1]) + self.modality
        x = x.float()  # what the layers add up; half precision would lose what each adds
        tapped: dict[int, Tensor] = {}
        inputs: list[Tensor] = []
        weights: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            inputs += [x] if hidden_states else []
            x, attention = layer(x, attentions)
            weights += [] if attention is None else [attention]
            if taps and index in self.config.taps:
                tapped[index] = x
        outputs = tuple(norm(tapped[i]) for norm, i in zip(self.tap_norms, self.config.taps, strict=True) if taps)
        last = self.norm(x)
        return EncoderOutput(
            last, outputs, (*inputs, last) if hidden_states else None, tuple(weights) if attentions else None
        )

    def _positions(self, first: int, time: int) -> Tensor:
        frequency, full = self.config.grid
        if time == full:
            return self.position
        return self.position.view(1, frequency, full, -1)[:, :, first : first + time].flatten(1, 2)

    def pool(self, features: Tensor) -> Tensor:
        """Mean over frequency, then over ``time_pool`` neighbours, divided by ``feature_divisor``.

        (B, F*T, D) -> (B, T // time_pool, D); what is left over at the end is not heard.
        """
        frequency, pool = self.config.grid[0], self.config.time_pool
        grid = features.view(features.shape[0], frequency, -1, features.shape[-1])
        pooled = grid.mean(dim=1)
        if pool > 1:
            whole = pooled.shape[1] // pool * pool
            pooled = pooled[:, :whole].unflatten(1, (-1, pool)).mean(dim=2)
        return pooled / self.config.feature_divisor
