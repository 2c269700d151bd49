"""Matrix products of the filterbank and the audio tower; on a CPU they go straight to oneDNN.

PyTorch gives float32 products to MKL, which on processors of other makers takes its slow kernels, and its attention for
the CPU is built on the same. oneDNN reaches more than twice the rate there (docs/speed.md), in the products of a
gradient too. Those of bfloat16 PyTorch itself gives to oneDNN when they are learned. Where AMX is, PyTorch's own way is
as fast and stays.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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
    return not _learns(x, weight) and _fits(x, weight)


def _learns(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first: a graph has no place for the look-up of the processor's kinds
        and type(x) is Tensor
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in _kinds()
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., I), weight (O, I) contiguous -> (..., O)."""
    return _product(x, weight) if direct(x, weight) else F.linear(x, weight)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, after: str = "none") -> Tensor:
    """The same by oneDNN, with what comes after it: ``none``, or ``gelu``, the exact one. Strides would be slow."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], "none")


class _LearnedProduct(torch.autograd.Function):
    """x (..., I), weight (O, I), bias (O,) or None -> (..., O), and the gradients of all three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(weight if of_x else None, x if of_weight else None)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        weight, x = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_x = None if weight is None else _product(gradient, weight.t())
        of_weight = None if x is None else _product(rows.t(), x.reshape(-1, x.shape[-1]).t())
        return of_x, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


def learned_directly(x: Tensor, weight: Tensor) -> bool:
    """Whether a product that is to be differentiated can be oneDNN's, its gradients too."""
    return x.dtype == torch.float32 and _learns(x, weight) and _fits(x, weight)


class Linear(nn.Linear):
    """``nn.Linear``, faster on a CPU; half-precision weights take float32 and give half precision."""

    def forward(self, x: Tensor) -> Tensor:
        x = _as(x, self.weight)
        if direct(x, self.weight):
            return _product(x, self.weight, self.bias)
        if learned_directly(x, self.weight):
            learned: Tensor = _LearnedProduct.apply(x, self.weight, self.bias)
            return learned
        return F.linear(x, self.weight, self.bias)


def quicken(module: nn.Module) -> None:
    """Let the plain ``nn.Linear`` in another library's model compute as :class:`Linear` does."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear


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
