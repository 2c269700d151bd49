"""Weights to NF4: the bits that bitsandbytes makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gama.bitsandbytes_import import import_bitsandbytes
from gama.quantization import nf4

functional = import_bitsandbytes().functional


def searched(weights: Tensor, levels: Tensor, blocksize: int) -> tuple[Tensor, Tensor]:
    """Codes by searching the nearest level of every weight, one block after the other."""
    codes, largest = [], []
    for block in weights.reshape(-1).float().split(blocksize):
        most = block.abs().max()
        largest.append(most)
        distance = (block / most.clamp(min=1e-38) - levels.unsqueeze(1)).abs()
        codes.append(distance.argmin(dim=0))
    flat = torch.cat(codes)
    flat = torch.nn.functional.pad(flat, (0, len(flat) % 2), value=7)  # the level 0
    return (flat[::2] * 16 + flat[1::2]).to(torch.uint8), torch.stack(largest)


def shapes() -> Iterator[tuple[tuple[int, ...], torch.dtype]]:
    yield (48, 192), torch.float32
    yield (300, 640), torch.bfloat16  # more than is quantized at a time
    yield (16, 64), torch.float16
    yield (5, 65), torch.float32  # the last block is not full, and the number of weights is odd


@pytest.mark.parametrize(("shape", "dtype"), list(shapes()))
def test_every_weight_gets_its_nearest_level(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weights = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02).to(dtype)
    levels = functional.get_4bit_type("nf4", device="cpu")
    codes, largest = nf4.quantize(weights, 64, levels)
    want, scales = searched(weights, levels, 64)
    assert torch.equal(largest, scales)
    different = int((codes != want).sum())
    assert different <= len(codes) // 10_000  # a weight between two levels may round either way


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_makes_the_same_bits_itself(kind: str) -> None:
    weights = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    weights[3] = 0
    nf4.install()
    codes, state = functional.quantize_4bit(weights, quant_type=kind, compress_statistics=True)
    back = functional.dequantize_4bit(codes, state)
    levels = functional.get_4bit_type(kind, device="cpu")
    spacing = levels.sort().values.diff().max() / 2
    largest = weights.view(-1, 64).abs().amax(1).repeat_interleave(64).view_as(weights)
    assert ((back - weights).abs() <= spacing * largest * 1.02 + 0.02 * largest).all()
    assert (back[3] == 0).all()
