"""A LLaMA's layer with 4-bit weights on a CPU: one token passes it in one call.

Between the products of one token there is little to compute: norms, rotary positions, attention of one query. Called
one operation at a time they cost a quarter of the token (benchmarks/four_bit.md). Everything else (a prompt, a batch,
padding, LoRA, hooks, training) takes transformers' way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from gama.model.key_values import CACHE, RoomyLayer, take_cache
from gama.quantization.kernels import Kernel, LlamaLayer, Norm, Packed, kernel
from gama.quantization.linear import CpuLinear4bit


class CpuLlamaLayer(LlamaDecoderLayer):
    """transformers' layer, through which one token after a prompt passes by gama's kernel."""

    _compiled: tuple[tuple[Any, ...], LlamaLayer] | None = None

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """hidden_states (B, T, N) -> (B, T, N)."""
        cache = take_cache({"cache": cache, "past_key_values": past_key_values})
        compiled = kernel()
        if isinstance(compiled, Kernel) and attention_mask is None and position_embeddings is not None and not kwargs:
            held = self._held(cache)
            layer = self._readable() if held is not None and self._is_one(hidden_states) else None
            if held is not None and layer is not None and _fit(layer, held, position_embeddings):
                keys, values, at = held.take_place()
                turns = cast("tuple[Tensor, Tensor]", tuple(turn.contiguous() for turn in position_embeddings))
                made = compiled.llama_layer(layer, hidden_states.contiguous(), turns, (keys, values), at)
                return made.view_as(hidden_states)
        return super().forward(
            hidden_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **{CACHE: cache},
            **kwargs,
        )

    def _is_one(self, x: Tensor) -> bool:
        """Whether it is one token that the kernel can read."""
        plain = not self.training and not torch.is_grad_enabled()
        return plain and x.shape[:2] == (1, 1) and x.dtype == torch.float32 and x.device.type == "cpu"

    def _held(self, cache: Any) -> RoomyLayer | None:
        """The keys and values of this layer; None where there are none, or none that can be written in place."""
        index = self.self_attn.layer_idx
        layers = getattr(cache, "layers", ())
        held = layers[index] if index < len(layers) else None
        return held if type(held) is RoomyLayer and held.get_seq_length() else None

    def _readable(self) -> LlamaLayer | None:
        """The layer for the kernel; None where something is not as the kernel computes it."""
        attention, mlp = self.self_attn, self.mlp
        four = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        linears = (*four, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        norms = (self.input_layernorm, self.post_attention_layernorm)
        if attention.config.hidden_act != "silu" or _are_hooked((attention, mlp, mlp.act_fn, *linears, *norms)):
            return None
        packed = [_packed(linear) for linear in linears]
        addresses = [_address(norm) for norm in norms]
        if None in packed or None in addresses:
            return None
        key = (*map(id, packed), *addresses)
        if self._compiled is None or self._compiled[0] != key:
            made = LlamaLayer(
                cast("list[Packed]", packed),
                cast("tuple[Norm, Norm]", tuple(Norm(norm.weight.data, norm.variance_epsilon) for norm in norms)),
                width=attention.head_dim,
                scaling=attention.scaling,
            )
            self._compiled = (key, made)  # which holds what the key is of
        return self._compiled[1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_compiled"}  # addresses are of this process


def _packed(linear: Any) -> Packed | None:
    return linear.readable() if type(linear) is CpuLinear4bit and linear.bias is None else None


def _address(norm: Any) -> int | None:
    weight = norm.weight
    readable = type(norm) is LlamaRMSNorm and weight.dtype == torch.float32 and weight.is_contiguous()
    return weight.data_ptr() if readable and weight.device.type == "cpu" else None


def _are_hooked(modules: Sequence[nn.Module]) -> bool:
    """Whether somebody wants to see or change what passes between them."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def _fit(layer: LlamaLayer, held: RoomyLayer, turns: tuple[Tensor, Tensor]) -> bool:
    keys, width = held.keys, layer.width
    plain = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in (keys, held.values, *turns))
    sides = keys.shape[:2] == (1, layer.shared) and keys.shape[-1] == held.values.shape[-1] == width
    return plain and sides and width % 2 == 0 and all(turn.shape == (1, 1, width) for turn in turns)
