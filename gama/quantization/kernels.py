"""The kernel for 4-bit weights on a CPU: the C files here, compiled once on the machine it runs on.

Compiling takes some seconds and happens the first time 4-bit weights are multiplied on this machine; the library lies
in ``GAMA_HOME``/kernels from then on. Without a C compiler, on another kind of processor, or with ``GAMA_KERNELS=0``,
bitsandbytes' own kernels compute. ``gama doctor`` says which.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gama.atomic import move
from gama.errors import CheckpointError, OutputError
from gama.hub.disk import cache_home
from gama.quantization.lengths import check_4bit

SWITCH = "GAMA_KERNELS"
"""The environment variable that turns the kernel off: 0."""

BLOCK = 64  # weights that share a scale
NESTED = 256  # scales that share a scale
_HEADER = Path(__file__).with_name("nf4.h")
_SOURCES = tuple(_HEADER.with_name(name) for name in ("nf4.c", "int8.c", "half.c", "llama.c"))
_FLAGS = ("-O3", "-march=native", "-fPIC", "-shared", "-fopenmp")
_LIBRARIES = ("-lm",)
_SECONDS = 120.0  # for a compiler


class _Weights(ctypes.Structure):
    """``Weights`` of nf4.h."""

    _fields_ = [
        ("codes", ctypes.c_void_p),
        ("absmax8", ctypes.c_void_p),
        ("absmax", ctypes.c_void_p),
        ("code8", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        ("offset", ctypes.c_float),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
    ]


class _Layer(ctypes.Structure):
    """``Layer`` of llama.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "o", "gate", "up", "down", "before", "after")),
        *((name, ctypes.c_float) for name in ("before_epsilon", "after_epsilon", "scaling")),
        *((name, ctypes.c_int64) for name in ("heads", "shared", "width")),
    ]


@dataclass(frozen=True)
class Missing:
    """Why there is no kernel."""

    reason: str


class Packed:
    """4-bit weights as the kernel reads them where they lie.

    Args:
        codes: bytes of bitsandbytes' ``Params4bit``.
        state: its ``QuantState``.

    Raises:
        CheckpointError: where a length is not what the shape makes it: the kernel reads as far as the shape says.
    """

    def __init__(self, codes: Tensor, state: Any) -> None:
        check_4bit(codes, state)
        self.shape: tuple[int, int] = tuple(state.shape)
        self.address = codes.data_ptr()
        scales = state.state2 if state.nested else state
        absmax = scales.absmax.float().contiguous()
        levels = state.code.float().contiguous()
        self._kept = [codes, absmax, levels]  # what the addresses below are of
        packed8 = code8 = None
        offset = 0.0
        if state.nested:
            packed8, code8 = state.absmax.contiguous(), scales.code.float().contiguous()
            self._kept += [packed8, code8]
            offset = float(state.offset)
        self.struct = _Weights(
            self.address,
            None if packed8 is None else packed8.data_ptr(),
            absmax.data_ptr(),
            None if code8 is None else code8.data_ptr(),
            levels.data_ptr(),
            offset,
            *self.shape,
        )
        self.pointer = ctypes.byref(self.struct)


@dataclass(frozen=True)
class Norm:
    """An RMSNorm.

    Attributes:
        weight: (N,) of float32, contiguous.
        epsilon: added to the mean of the squares.
    """

    weight: Tensor
    epsilon: float


class LlamaLayer:
    """A LLaMA's layer as the kernel reads it.

    Args:
        products: q, k, v, o, gate, up and down.
        norms: before attention, and before the feed-forward part.
        width: of a head; even.
        scaling: of scores.

    Raises:
        CheckpointError: where the sides of its weights do not meet.
    """

    def __init__(self, products: Sequence[Packed], norms: tuple[Norm, Norm], *, width: int, scaling: float) -> None:
        _check_sides([weights.shape for weights in products], [len(norm.weight) for norm in norms], width)
        self._kept = [*products, *norms]  # what the addresses below are of
        self.inputs = products[0].shape[1]
        self.heads, self.shared, self.width = products[0].shape[0] // width, products[1].shape[0] // width, width
        self._struct = _Layer(
            *(ctypes.addressof(weights.struct) for weights in products),
            *(norm.weight.data_ptr() for norm in norms),
            *(norm.epsilon for norm in norms),
            scaling,
            self.heads,
            self.shared,
            width,
        )
        self.pointer = ctypes.byref(self._struct)


class Kernel:
    """The compiled library.

    Attributes:
        name: the instruction set it was compiled for.
        int8_outputs: products in int8 need a multiple of so many outputs; 0 where the processor has no such products.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        library.gama_nf4_name.restype = ctypes.c_char_p
        whole, pointer = ctypes.c_int64, ctypes.c_void_p
        library.gama_nf4_product.argtypes = [pointer, pointer, whole, pointer, ctypes.c_int]
        library.gama_nf4_unpack.argtypes = [pointer, whole, whole, ctypes.c_int, pointer, ctypes.c_int]
        library.gama_nf4_unpack.restype = None
        library.gama_bf16_product.argtypes = [pointer, whole, whole, pointer, whole, pointer, ctypes.c_int]
        library.gama_bf16_product.restype = None
        library.gama_int8_product.argtypes = library.gama_nf4_product.argtypes
        library.gama_llama_layer.argtypes = [*(pointer,) * 6, whole, whole, ctypes.c_int]
        self.name: str = library.gama_nf4_name().decode()
        self.int8_outputs: int = library.gama_int8_outputs()
        self._library = library

    def product(self, x: Tensor, weights: Packed) -> Tensor:
        """x (M, K) of float32, contiguous -> (M, N) of float32."""
        return _filled(self._library.gama_nf4_product, x, weights)

    def int8_product(self, x: Tensor, weights: Packed) -> Tensor:
        """The same in int8, fast for many rows; N is a multiple of ``int8_outputs``."""
        return _filled(self._library.gama_int8_product, x, weights)

    def unpack(self, weights: Packed, first: int, out: Tensor) -> Tensor:
        """Write rows ``first`` and on of the weights into ``out`` (rows, K), of bfloat16 or float32."""
        if out.shape[1] != weights.shape[1] or not 0 <= first <= weights.shape[0] - len(out):
            raise ValueError(f"{tuple(out.shape)} from row {first} on do not lie in weights of {weights.shape}")
        half = int(out.dtype == torch.bfloat16)
        threads = torch.get_num_threads()
        self._library.gama_nf4_unpack(weights.pointer, first, len(out), half, out.data_ptr(), threads)
        return out

    def half_product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (M, K) of float32, weight (N, K) of bfloat16, both contiguous, N a multiple of 4 -> (M, N) of float32."""
        outputs, inputs = weight.shape
        if x.shape[-1] != inputs:
            raise ValueError(f"rows of {x.shape[-1]} numbers do not fit weights of {outputs} x {inputs}")
        out = torch.empty(len(x), outputs)
        threads = torch.get_num_threads()
        self._library.gama_bf16_product(
            weight.data_ptr(), outputs, inputs, x.data_ptr(), len(x), out.data_ptr(), threads
        )
        return out

    def llama_layer(
        self, layer: LlamaLayer, x: Tensor, turns: tuple[Tensor, Tensor], room: tuple[Tensor, Tensor], at: int
    ) -> Tensor:
        """One token through a layer, all of float32 and contiguous: x (N,) -> (N,).

        Args:
            layer: the layer.
            x: of the token.
            turns: cosines and sines of its position, (D,).
            room: of keys and of values, (H, S, D).
            at: the position in the room; its keys and values are written there.
        """
        inputs, positions = layer.inputs, room[0].shape[-2]
        places = {(layer.shared, positions, layer.width)}
        shapes = {tuple(part.shape[-3:]) for part in room}
        if x.numel() != inputs or {turn.numel() for turn in turns} != {layer.width} or shapes != places:
            raise ValueError(f"a token of {x.numel()} numbers and a cache of {shapes} do not fit a layer of {inputs}")
        if not 0 <= at < positions:
            raise ValueError(f"position {at} lies outside a cache of {positions}")
        out = x.clone()
        addresses = [tensor.data_ptr() for tensor in (out, *turns, *room)]
        if self._library.gama_llama_layer(layer.pointer, *addresses, room[0].shape[-2], at, torch.get_num_threads()):
            raise MemoryError("no memory for a layer with 4-bit weights")
        return out


def _check_sides(shapes: Sequence[tuple[int, int]], norms: Sequence[int], width: int) -> None:
    """q, k, v, o, gate, up, down: what one makes, the next reads."""
    (wide, inputs), (narrow, _), *_, (deep, _), _, _ = shapes
    expected = [(wide, inputs), (narrow, inputs), (narrow, inputs), (inputs, wide)]
    expected += [(deep, inputs), (deep, inputs), (inputs, deep)]
    heads, shared = wide // width, narrow // width
    whole = min(heads, shared) > 0 and heads % shared == 0 and heads * width == wide and shared * width == narrow
    if list(shapes) != expected or list(norms) != [inputs, inputs] or not whole:
        raise CheckpointError(f"a layer's weights of {', '.join(f'{n} x {k}' for n, k in shapes)} do not fit together")


def _filled(multiply: Any, x: Tensor, weights: Packed) -> Tensor:
    if x.shape[-1] != weights.shape[1]:
        raise ValueError(f"rows of {x.shape[-1]} numbers do not fit weights of {weights.shape[0]} x {weights.shape[1]}")
    out = torch.empty(len(x), weights.shape[0])
    if multiply(weights.pointer, x.data_ptr(), len(x), out.data_ptr(), torch.get_num_threads()):
        raise MemoryError("no memory for a product with 4-bit weights")
    return out


def fits(state: Any) -> bool:
    """Whether the kernel can read weights of this ``QuantState``: NF4 in blocks of 64 that end where rows end."""
    return bool(
        len(state.shape) == 2
        and state.shape[1] % BLOCK == 0
        and state.quant_type == "nf4"
        and state.blocksize == BLOCK
        and (not state.nested or state.state2.blocksize == NESTED)
    )


@cache
def kernel() -> Kernel | Missing:
    """The kernel of this machine, compiled now where it has not been yet."""
    if os.environ.get(SWITCH, "1") == "0":
        return Missing(f"{SWITCH}=0")
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        return Missing(f"there is none for {platform.system()} on {platform.machine()}")
    compiler = shlex.split(os.environ.get("CC", "")) or [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
    if not compiler:
        return Missing("there is no C compiler")
    library = cache_home() / "kernels" / f"nf4-{_identity(compiler)}.so"
    try:
        if not library.is_file():
            _compile(compiler, library)
        return Kernel(ctypes.CDLL(str(library)))
    except (OSError, OutputError, subprocess.SubprocessError) as error:
        return Missing(_reason(error))


def _identity(compiler: list[str]) -> str:
    """What the library depends on: the source, how it is compiled, and the processor."""
    flags = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")), "")
    parts = [file.read_bytes() for file in (_HEADER, *_SOURCES)]
    parts += [text.encode() for text in (*compiler, *_FLAGS, flags)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _compile(compiler: list[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".compiling-") as folder:
        made = Path(folder) / library.name
        command = [*compiler, *_FLAGS, *map(str, _SOURCES), "-o", str(made), *_LIBRARIES]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        move(made, library)


def _reason(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or "").strip().splitlines()
    wrong = next((line for line in said if "error" in line), None)
    return f"it cannot be compiled: {wrong or error}"
