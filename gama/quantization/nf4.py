"""Weights to NF4 on a CPU: the same bits as bitsandbytes makes, several times as fast.

bitsandbytes searches the level of every weight by itself. Here blocks that fit the processor's cache are compared with
one bound after the other, which vector instructions do (docs/quantization.md has the times).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from gama.bitsandbytes_import import import_bitsandbytes

_CHUNK = 2**17  # weights at a time: with their copies they stay in a core's cache
_TINY = 1e-38  # least divisor, as bitsandbytes has it: a block of zeros stays one


@cache
def install() -> None:
    """Let bitsandbytes quantize by this on a CPU, in this process."""
    import_bitsandbytes()
    from bitsandbytes import _ops

    _ops.register_kernel("bitsandbytes::quantize_4bit", "cpu")(_kernel)


def quantize(weights: Tensor, blocksize: int, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of two weights a byte, the first in the upper half, (ceil(n / 2),) and the largest of each block.

    Args:
        weights: of any shape, n of them, in any floating dtype.
        blocksize: weights that share a scale; even.
        levels: (16,) values of the codes, the largest magnitude 1.
    """
    ranked = levels[levels.argsort()]
    limits = ((ranked[:-1] + ranked[1:]) / 2).tolist()
    flat = weights.reshape(-1)
    whole = len(flat) // blocksize * blocksize
    parts = [_blocks(part, blocksize, limits) for part in flat[:whole].split(_CHUNK // blocksize * blocksize)]
    if whole < len(flat):
        parts.append(_rest(flat[whole:], limits))
    codes = torch.cat([codes for codes, _ in parts])
    return codes, torch.cat([largest for _, largest in parts])


def _blocks(part: Tensor, blocksize: int, limits: list[float]) -> tuple[Tensor, Tensor]:
    blocks = part.float().view(-1, blocksize)
    largest = blocks.abs().amax(dim=1)
    scaled = (blocks * (1.0 / largest.clamp(min=_TINY)).unsqueeze(1)).clamp_(-1, 1)
    return _packed(scaled.view(-1), limits), largest


def _rest(part: Tensor, limits: list[float]) -> tuple[Tensor, Tensor]:
    """The last block where it is not full: bitsandbytes divides there, which rounds otherwise."""
    part = part.float()
    largest = part.abs().amax().clamp(min=_TINY)
    scaled = (part / largest).clamp_(-1, 1)
    return _packed(torch.nn.functional.pad(scaled, (0, len(part) % 2)), limits), largest.unsqueeze(0)


def _packed(scaled: Tensor, limits: list[float]) -> Tensor:
    codes = torch.zeros(scaled.shape, dtype=torch.uint8)
    for limit in limits:
        codes += (scaled > limit).view(torch.uint8)
    pairs = codes.view(-1, 2)
    return (pairs[:, 0] << 4) | pairs[:, 1]


def _kernel(weights: Tensor, blocksize: int, quant_type: str, quant_storage: torch.dtype) -> tuple[Tensor, Tensor]:
    """The operator ``bitsandbytes::quantize_4bit``."""
    from bitsandbytes.functional import get_4bit_type

    levels = get_4bit_type(quant_type, device=weights.device)
    codes, largest = quantize(weights, blocksize, levels)
    if quant_type != "nf4":  # the codes of NF4 are in the order of their levels
        order = levels.argsort().to(torch.uint8)
        codes = (order[(codes >> 4).int()] << 4) | order[(codes & 15).int()]
    if quant_storage != torch.uint8:
        codes = codes.view(quant_storage)
    return codes.unsqueeze(1), largest
