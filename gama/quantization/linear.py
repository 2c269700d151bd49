"""4-bit layers on a CPU: bitsandbytes' class and weights, multiplied in the way that is fastest here.

Few rows (an answer's next token) are multiplied with the codes as they are stored, which reads the least memory. Many
rows (a prompt) are multiplied in int8 where the processor has AVX512-VNNI and no AMX; elsewhere by its matrix
instructions with weights that are unpacked for it, a slice of a layer at a time. bitsandbytes instead repacks the codes
at the first product, rounding their scales, and multiplies any number of rows in the same way.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import bitsandbytes
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from gama.quantization.kernels import BLOCK, Kernel, Packed, fits, kernel
from gama.quantization.lengths import check_4bit, check_8bit

FEW = 16  # rows up to which the codes are multiplied as they are (docs/quantization.md)
_REPACKED_ROWS = 32  # outputs that bitsandbytes puts together
_HEAD_ROWS = 4  # outputs that the kernel computes together
_SLICE = 2**22  # weights unpacked at a time: 8 MB of bfloat16


class CpuLinear4bit(bitsandbytes.nn.Linear4bit):
    """bitsandbytes' 4-bit layer, whose products on a CPU are gama's where nothing is differentiated."""

    _packed: Packed | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> (..., N)."""
        if self.training or x.device.type != "cpu" or not x.numel() or (x.requires_grad and torch.is_grad_enabled()):
            return super().forward(x)
        compiled = kernel()
        packed = self.readable() if isinstance(compiled, Kernel) else None
        if isinstance(compiled, Kernel) and packed is not None:
            made = _product(compiled, x.reshape(-1, x.shape[-1]), packed)
            made = made.to(x.dtype) if self.bias is None else (made + self.bias).to(x.dtype)
            return made.view(*x.shape[:-1], packed.shape[0])
        if self._is_repacked_by_bitsandbytes():
            return super().forward(x)
        made = bitsandbytes.matmul_4bit(x.to(self.compute_dtype), self.weight, self.weight.quant_state, bias=self.bias)
        return made.to(x.dtype)

    def _is_repacked_by_bitsandbytes(self) -> bool:
        """Whether it can be: bitsandbytes fails at the first product of a layer of other sides."""
        outputs, inputs = self.weight.quant_state.shape
        return outputs % _REPACKED_ROWS == 0 and inputs % BLOCK == 0

    def readable(self) -> Packed | None:
        """The weights for the kernel; None where it does not know their form."""
        codes = self.weight
        if self._packed is None or self._packed.address != codes.data_ptr():
            state = codes.quant_state
            if codes.device.type != "cpu" or getattr(state, "packing_format_for_cpu", False) or not fits(state):
                return None
            self._packed = Packed(codes.data.view(torch.uint8), state)
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_packed"}  # addresses are of this process


class CpuHead(nn.Linear):
    """A head whose weights lie in bfloat16, as the checkpoint has them, and whose products are of float32."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> (..., N)."""
        rows = x.reshape(-1, x.shape[-1])
        compiled = kernel()
        differentiated = x.requires_grad and torch.is_grad_enabled()
        if isinstance(compiled, Kernel) and x.device.type == "cpu" and len(rows) <= FEW and not differentiated:
            made = compiled.half_product(rows.float().contiguous(), self.weight)
            return made.to(x.dtype).view(*x.shape[:-1], self.out_features)
        return F.linear(x, self.weight.to(x.dtype))


def settle(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Make a quantized model compute in ``dtype``, whatever it was stored for, and its 4-bit layers fast on a CPU."""
    for parameter in model.parameters():
        if parameter.is_floating_point():  # transformers leaves a folder that is stored quantized as it is
            parameter.data = parameter.data.to(dtype)
    layers: list[Any] = [module for module in model.modules() if type(module) is bitsandbytes.nn.Linear4bit]
    for layer in layers:
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
        if layer.weight.device.type == "cpu":
            layer.__class__ = CpuLinear4bit
    if isinstance(model, PreTrainedModel) and layers:
        from gama.quantization.layers import CpuLlamaLayer  # it builds on this module

        for module in model.modules():
            if type(module) is LlamaDecoderLayer:
                module.__class__ = CpuLlamaLayer
        _halve_head(model.get_output_embeddings(), model.get_input_embeddings())


def _halve_head(head: Any, embedding: Any) -> None:
    """Hold the head in bfloat16 where that loses nothing: it is read whole for every token."""
    if type(head) is not nn.Linear or head.bias is not None or head.out_features % _HEAD_ROWS:
        return
    weight = head.weight
    ours = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight is not embedding.weight
    if ours and isinstance(kernel(), Kernel):
        half = weight.data.bfloat16()
        if all(torch.equal(a.float(), b) for a, b in zip(half.split(1024), weight.data.split(1024), strict=True)):
            head.weight = nn.Parameter(half, requires_grad=False)
            head.__class__ = CpuHead


def without_scales(model: torch.nn.Module) -> list[str]:
    """Names of quantized weights whose scales were not loaded; transformers says nothing of those in 8 bits."""
    kinds = {bitsandbytes.nn.Linear4bit: "quant_state", bitsandbytes.nn.Linear8bitLt: "SCB"}
    return [
        f"{name}.weight"
        for name, module in model.named_modules()
        for kind, scales in kinds.items()
        if isinstance(module, kind) and getattr(module.weight, scales, None) is None
    ]


def check_quantized(model: nn.Module) -> None:
    """Compare every quantized weight with the sides of its layer, before anything is computed with it.

    Raises:
        CheckpointError: naming the weight and the part of it that does not fit.
    """
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            sides = (module.out_features, module.in_features)
            check_4bit(module.weight.data, module.weight.quant_state, sides, name=f"{name}.weight")
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            sides = (module.out_features, module.in_features)
            check_8bit(module.weight.data, module.weight.SCB, sides, name=f"{name}.weight")


@cache
def matrix_dtype() -> torch.dtype:
    """The precision in which this processor multiplies matrices fastest."""
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _product(compiled: Kernel, x: Tensor, weights: Packed) -> Tensor:
    """x (M, K) -> (M, N), in float32 or the precision of matrix products."""
    outputs, inputs = weights.shape
    if len(x) <= FEW:
        return compiled.product(x.float().contiguous(), weights)
    if compiled.int8_outputs and outputs % compiled.int8_outputs == 0 and not torch.cpu._is_amx_tile_supported():
        return compiled.int8_product(x.float().contiguous(), weights)
    dtype = matrix_dtype()
    x = x.to(dtype)
    out = torch.empty(len(x), outputs, dtype=dtype)
    unpacked = torch.empty(min(outputs, max(1, _SLICE // inputs)), inputs, dtype=dtype)
    for first in range(0, outputs, len(unpacked)):
        rows = compiled.unpack(weights, first, unpacked[: outputs - first])
        out[:, first : first + len(rows)] = F.linear(x, rows)
    return out
