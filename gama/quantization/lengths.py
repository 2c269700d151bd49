"""Quantized weights as a checkpoint gives them, compared length by length before compiled code reads them.

A product's kernel, ours or bitsandbytes', takes addresses and the sides of the matrix and reads as far as they say. So
the codes, their scales and the scales of these have to be as long as the sides make them, and every factor a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gama.errors import CheckpointError

_LEVELS = 16
_NESTED_LEVELS = 256
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # of bitsandbytes
_STORAGE = (torch.uint8, torch.int8, torch.bfloat16, torch.float16, torch.float32)  # of bytes, two codes in each
_KINDS = ("nf4", "fp4")


def check_4bit(codes: Tensor, state: Any, sides: Sequence[int] | None = None, *, name: str = "4-bit weights") -> None:
    """Compare codes and ``QuantState`` of bitsandbytes with each other.

    Args:
        codes: two weights a byte.
        state: of these.
        sides: (N, K) of the layer; what the state says where absent.
        name: of the weights, for the message.

    Raises:
        CheckpointError: naming the part that does not fit.
    """
    shape = tuple(state.shape) if state.shape is not None else ()
    if len(shape) != 2 or min(shape) < 1 or shape != tuple(shape if sides is None else sides):
        raise _wrong(name, "quant_state", f"a shape of {_sides(shape)}", _sides(sides or ("N", "K")))
    if state.quant_type not in _KINDS:
        raise _wrong(name, "quant_state", f"the kind {str(state.quant_type)[:20]!r}", "nf4 or fp4")
    if not isinstance(state.dtype, torch.dtype) or not state.dtype.is_floating_point:
        raise _wrong(name, "quant_state", f"the dtype {str(state.dtype)[:40]}", "float32, bfloat16 or float16")
    count = math.prod(shape)
    _check_length(name, "codes", codes.numel() * codes.element_size(), math.ceil(count / 2), "bytes")
    if codes.dtype not in _STORAGE:
        raise _wrong(name, "codes", f"the dtype {codes.dtype}", "torch.uint8")
    if not codes.is_contiguous():
        raise _wrong(name, "codes", "gaps between its numbers", "none")
    scales = math.ceil(count / _block_size(name, "blocksize", state.blocksize))
    _check_length(name, "quant_map", state.code.numel(), _LEVELS)
    _check_length(name, "absmax", state.absmax.numel(), scales)
    _check_floats(name, "quant_map", state.code)
    if not torch.allclose(state.code.cpu().reshape(-1), _levels(state.quant_type), atol=1e-6):
        raise _wrong(name, "quant_map", "other numbers", f"the levels of {state.quant_type}")
    if not state.nested:
        _check_floats(name, "absmax", state.absmax)
        return
    nested = state.state2
    if state.absmax.dtype != torch.uint8:
        raise _wrong(name, "absmax", f"numbers of {state.absmax.dtype}", "torch.uint8")
    size = _block_size(name, "nested_blocksize", nested.blocksize)
    _check_length(name, "nested_absmax", nested.absmax.numel(), math.ceil(scales / size))
    _check_length(name, "nested_quant_map", nested.code.numel(), _NESTED_LEVELS)
    _check_floats(name, "nested_absmax", nested.absmax)
    _check_floats(name, "nested_quant_map", nested.code)
    if not isinstance(state.offset, Tensor) or state.offset.numel() != 1 or not math.isfinite(float(state.offset)):
        raise _wrong(name, "nested_offset", "no finite number", "the mean of the scales")


@cache
def _levels(kind: str) -> Tensor:
    from bitsandbytes.functional import get_4bit_type

    levels: Tensor = get_4bit_type(kind, device="cpu")
    return levels


def check_8bit(codes: Tensor, scales: Tensor, sides: Sequence[int], *, name: str) -> None:
    """Compare the codes and scales of LLM.int8 with the sides (N, K) of their layer.

    Raises:
        CheckpointError: naming the part that does not fit.
    """
    if tuple(codes.shape) != tuple(sides) or codes.dtype != torch.int8:
        raise _wrong(name, "weight", f"{_sides(codes.shape)} of {codes.dtype}", f"{_sides(sides)} of torch.int8")
    _check_length(name, "SCB", scales.numel(), sides[0])
    _check_floats(name, "SCB", scales)


def _block_size(name: str, part: str, given: Any) -> int:
    if type(given) is not int or given not in _BLOCK_SIZES:
        raise _wrong(name, part, str(given)[:20], "a power of two from 32 to 4096")
    return given


def _check_length(name: str, part: str, found: int, expected: int, unit: str = "numbers") -> None:
    if found != expected:
        raise _wrong(name, part, f"{found:,} {unit}", f"{expected:,}")


def _check_floats(name: str, part: str, values: Tensor) -> None:
    if values.dtype != torch.float32:
        raise _wrong(name, part, f"numbers of {values.dtype}", "torch.float32")
    if not bool(values.isfinite().all()):
        raise _wrong(name, part, "NaN or infinity among its numbers", "finite ones")


def _sides(sides: Sequence[Any]) -> str:
    return " x ".join(map(str, sides))[:60] or "nothing"


def _wrong(name: str, part: str, found: str, expected: str) -> CheckpointError:
    return CheckpointError(f"{name}: {part} has {found}, expected: {expected}", "the file is damaged: get it again")
