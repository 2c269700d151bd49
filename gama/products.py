"""Matrix products of the filterbank and the audio tower; without gradients on a CPU they go straight to oneDNN.

PyTorch gives float32 products to MKL, which on processors of other makers takes its slow kernels, and its attention for
the CPU is built on the same. oneDNN reaches more than twice the rate there (docs/speed.md). Where AMX is, PyTorch's own
way is as fast and stays.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HALF = (torch.bfloat16, torch.float16)
_MANY = 128  # queries from which attention is worth taking apart


@cache
def _kinds() -> frozenset[torch.dtype]:
    """The precisions whose products are taken from PyTorch here."""
    amx = torch.cpu._is_amx_tile_supported()
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512" or amx:
        return frozenset()
    half = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return frozenset({torch.float32, torch.bfloat16} if half else {torch.float32})


def direct(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can be called as it is: nothing differentiates, traces, or casts on the way."""
    return (
        type(x) is Tensor
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in _kinds()
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., I), weight (O, I) contiguous -> (..., O)."""
    return _product(x, weight) if direct(x, weight) else F.linear(x, weight)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, after: str = "none") -> Tensor:
    """The same by oneDNN, with what comes after it: ``none``, or ``gelu``, the exact one. Strides would be slow."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], "none")


class Linear(nn.Linear):
    """``nn.Linear``, faster without gradients on a CPU; half-precision weights take float32 and give half precision."""

    def forward(self, x: Tensor) -> Tensor:
        x = _as(x, self.weight)
        if direct(x, self.weight):
            return _product(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


def linear_gelu(linear: nn.Module, x: Tensor) -> Tensor:
    """Exact GELU of a linear layer, in one pass where the layer is a plain :class:`Linear`."""
    if type(linear) is Linear:
        x = _as(x, linear.weight)
        if direct(x, linear.weight):
            return _product(x, linear.weight, linear.bias, "gelu")
    return F.gelu(linear(x))


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` that keeps float32 where it is given float32, whatever its weights are held in."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (t.float() if x.dtype == torch.float32 else t for t in (self.weight, self.bias))
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


def _as(x: Tensor, weight: Tensor) -> Tensor:
    """float32 in the precision of half-precision weights; autocast sees to it itself, and knows its own precision."""
    return x.to(weight.dtype) if weight.dtype in _HALF and x.dtype == torch.float32 else x


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention of every head to everything: query (B, H, Q, D), key and value (B, H, T, D) -> (B, Q, H * D)."""
    if dropout or query.shape[2] < _MANY or not direct(query, key):
        heard = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return heard.transpose(1, 2).flatten(2)
    query = query * query.shape[-1] ** -0.5
    if query.dtype == torch.bfloat16:
        return ((query @ key.transpose(2, 3)).softmax(-1) @ value).transpose(1, 2).flatten(2)
    return _attend_by_heads(query, key, value)


def _attend_by_heads(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Head by head, so that the scores of one stay in the cache; there is no batched product of float32 in oneDNN."""
    batch, heads, length, width = query.shape
    heard = query.new_empty(batch, length, heads, width)
    for clip in range(batch):
        for head in range(heads):
            chances = _product(query[clip, head], key[clip, head].contiguous()).softmax(-1)
            heard[clip, :, head] = _product(chances, value[clip, head].t().contiguous())
    return heard.flatten(2)
