"""The modules that are traced: each is the model's own computation in a form ONNX can hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gama.errors import CheckpointError
from gama.fbank import DOUBLE_STD, FRAME_LENGTH, FRAME_SHIFT, LOG_FLOOR, MEAN, PREEMPHASIS, KaldiFbank
from gama.model.gama import GamaForConditionalGeneration

_FRAME_REST = FRAME_LENGTH - 2 * FRAME_SHIFT  # samples: a frame is two shifts and a half


class FbankGraph(nn.Module):
    """``KaldiFbank`` with every size fixed but the batch and the samples: always ``num_frames`` frames, then a mask.

    The DFT stays a constant matrix product and everything is float32, in every precision of an export.
    """

    dft: Tensor
    filters: Tensor

    def __init__(self, num_frames: int, num_mel_bins: int) -> None:
        super().__init__()
        fbank = KaldiFbank(num_frames, num_mel_bins)
        self.num_frames = num_frames
        self.register_buffer("dft", fbank.dft)
        self.register_buffer("filters", fbank.filters)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """waveform (B, N) float32 at 16 kHz, N >= 400, lengths (B,) int64 -> normalised log-mel (B, T, M)."""
        log_mel = self._log_mel(self._frames(_centred(waveform, lengths.unsqueeze(1))))
        # 1 + (n - 400) // 160, written so that truncating division gives 0 frames below 400 samples as well
        frames = (lengths - (FRAME_LENGTH - FRAME_SHIFT)) // FRAME_SHIFT
        heard = torch.arange(self.num_frames, device=lengths.device) < frames.unsqueeze(1)
        return (torch.where(heard.unsqueeze(-1), log_mel, 0.0) - MEAN) / DOUBLE_STD

    def _frames(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, T, 400): overlapping frames out of blocks of one shift."""
        count = self.num_frames
        used = (count + 2) * FRAME_SHIFT
        blocks = F.pad(waveform, (0, used))[:, :used].reshape(-1, count + 2, FRAME_SHIFT)
        return torch.cat([blocks[:, :count], blocks[:, 1 : count + 1], blocks[:, 2:, :_FRAME_REST]], dim=-1)

    def _log_mel(self, frames: Tensor) -> Tensor:
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        cosine, sine = ((frames - PREEMPHASIS * previous) @ self.dft).chunk(2, dim=-1)
        mel = (cosine.square() + sine.square()) @ self.filters
        return mel.clamp(min=LOG_FLOOR).log()


def _centred(waveform: Tensor, lengths: Tensor) -> Tensor:
    heard = torch.arange(waveform.shape[1], device=waveform.device) < lengths
    quiet = torch.where(heard, waveform, 0.0)
    return torch.where(heard, quiet - quiet.sum(dim=1, keepdim=True) / lengths, 0.0)


class EncoderGraph(nn.Module):
    """fbank (B, T, M) -> ``encoded`` (B, patches, C): the encoder's last layer."""

    def __init__(self, model: GamaForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.audio_tower.encoder

    def forward(self, fbank: Tensor) -> Tensor:
        return self.encoder(fbank).last


class TowerGraph(nn.Module):
    """fbank (B, T, M) -> prefix (B, P, D): all that ``get_audio_features`` does, and none of the dead weights."""

    def __init__(self, model: GamaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, fbank: Tensor) -> Tensor:
        return self.model.audio_prefix(fbank)


class LanguageModelGraph(nn.Module):
    """Prefill and decode step of a LLaMA-like language model, one row, with an explicit cache.

    Raises:
        CheckpointError: for a language model of another kind.
    """

    def __init__(self, model: GamaForConditionalGeneration) -> None:
        super().__init__()
        config = model.config.text_config
        if config.model_type != "llama":
            raise CheckpointError(
                f"the language model is of type {config.model_type!r}; the instant engine runs 'llama' alone",
                "export its audio front end: gama export onnx",
            )
        self.model = model
        self.layers = int(config.num_hidden_layers)
        self.heads = int(config.num_key_value_heads)
        self.groups = int(config.num_attention_heads) // self.heads
        self.width = int(model.language_model.model.layers[0].self_attn.head_dim)

    def forward(self, input_ids: Tensor, prefix: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One step.

        Args:
            input_ids: (1, T), placeholders where soft tokens go.
            prefix: (R, D), R >= 1: the soft tokens in reading order; zeros where there are none.
            past: (layers, 2, 1, heads, S, width), keys and values of what was read before.

        Returns:
            ``logits`` (1, V) of the last position and ``present``, ``past`` with T positions more.
        """
        decoder = self.model.language_model.model
        seen, new = past.shape[4], input_ids.shape[1]
        positions = torch.arange(seen, seen + new, device=input_ids.device)
        x = self._embedded(input_ids, prefix)
        rotation = decoder.rotary_emb(x, positions.unsqueeze(0))
        visible = torch.arange(seen + new, device=input_ids.device) <= positions.unsqueeze(1)
        present = []
        for index, layer in enumerate(decoder.layers):
            heard, kept = self._attend(layer, x, past[index], rotation, visible)
            x = x + heard
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            present.append(kept)
        logits = self.model.language_model.lm_head(decoder.norm(x[:, -1:]))
        return logits[:, 0], torch.stack(present)

    def _embedded(self, input_ids: Tensor, prefix: Tensor) -> Tensor:
        placeholder = input_ids == self.model.config.audio_token_id
        rows = (placeholder.cumsum(dim=1) - 1).clamp(min=0)
        text = self.model.get_input_embeddings()(input_ids.masked_fill(placeholder, 0))
        return torch.where(placeholder.unsqueeze(-1), prefix[rows], text)

    def _attend(
        self, layer: Any, x: Tensor, past: Tensor, rotation: tuple[Tensor, Tensor], visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        attention = layer.self_attn
        x = layer.input_layernorm(x)
        query = _rotated(self._split(attention.q_proj(x)), *rotation)
        key = torch.cat([past[0], _rotated(self._split(attention.k_proj(x)), *rotation)], dim=2)
        value = torch.cat([past[1], self._split(attention.v_proj(x))], dim=2)
        keys, values = (t.repeat_interleave(self.groups, dim=1) if self.groups > 1 else t for t in (key, value))
        scores = query @ keys.transpose(2, 3) * attention.scaling
        chances = scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(dim=-1)
        merged = (chances @ values).transpose(1, 2).flatten(2)
        return attention.o_proj(merged), torch.stack([key, value])

    def _split(self, x: Tensor) -> Tensor:
        return x.view(1, x.shape[1], -1, self.width).transpose(1, 2)


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine
