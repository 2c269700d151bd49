"""Quantized weights whose lengths, tables or factors are not what their shape makes them: refused, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gama.bitsandbytes_import import import_bitsandbytes
from gama.errors import CheckpointError
from gama.quantization.kernels import Kernel, LlamaLayer, Norm, Packed, kernel
from gama.quantization.lengths import check_4bit, check_8bit
from gama.quantization.stored_scales import check_stored

bitsandbytes = import_bitsandbytes()
NAME = "language_model.model.layers.0.mlp.up_proj.weight"
STATE = f"{NAME}.quant_state.bitsandbytes__nf4"


def quantized(outputs: int = 32, inputs: int = 1024, *, nested: bool = True) -> Any:
    """Weights in 4 bits: 512 scales, and 2 scales of these."""
    torch.manual_seed(0)
    weight = bitsandbytes.nn.Params4bit(
        torch.randn(outputs, inputs), requires_grad=False, quant_type="nf4", compress_statistics=nested
    )
    return weight.to("cpu")


NESTED: dict[str, tuple[Callable[[Any], object], str]] = {
    "shape too wide": (
        lambda s: setattr(s, "shape", torch.Size((32, 2048))),
        "codes has 16,384 bytes, expected: 32,768",
    ),
    "shape of one side": (lambda s: setattr(s, "shape", torch.Size((32768,))), "shape of 32768"),
    "no shape": (lambda s: setattr(s, "shape", None), "shape of nothing"),
    "negative shape": (lambda s: setattr(s, "shape", torch.Size((32, 0))), "shape of 32 x 0"),
    "empty absmax": (lambda s: setattr(s, "absmax", s.absmax[:0]), "absmax has 0 numbers, expected: 512"),
    "cut absmax": (lambda s: setattr(s, "absmax", s.absmax[:-1]), "absmax has 511 numbers, expected: 512"),
    "absmax of floats": (lambda s: setattr(s, "absmax", s.absmax.float()), "absmax has numbers of torch.float32"),
    "cut nested absmax": (lambda s: setattr(s.state2, "absmax", s.state2.absmax[:1]), "nested_absmax has 1 numbers"),
    "half of the nested table": (lambda s: setattr(s.state2, "code", s.state2.code[:128]), "nested_quant_map has 128"),
    "half of the levels": (lambda s: setattr(s, "code", s.code[:8]), "quant_map has 8 numbers, expected: 16"),
    "other levels": (lambda s: setattr(s, "code", s.code.flip(0)), "quant_map has other numbers"),
    "blocks of nothing": (lambda s: setattr(s, "blocksize", 0), "blocksize has 0"),
    "larger blocks": (lambda s: setattr(s, "blocksize", 128), "absmax has 512 numbers, expected: 256"),
    "larger nested blocks": (lambda s: setattr(s.state2, "blocksize", 512), "nested_absmax has 2 numbers, expected: 1"),
    "NaN offset": (lambda s: setattr(s, "offset", torch.tensor(float("nan"))), "nested_offset has no finite number"),
    "no offset": (lambda s: setattr(s, "offset", None), "nested_offset has no finite number"),
    "NaN factor": (lambda s: s.state2.absmax.fill_(float("nan")), "nested_absmax has NaN or infinity"),
    "infinite table": (lambda s: s.state2.code.fill_(float("inf")), "nested_quant_map has NaN or infinity"),
    "another kind": (lambda s: setattr(s, "quant_type", "nf8"), "the kind 'nf8'"),
    "no dtype": (lambda s: setattr(s, "dtype", torch.load), "the dtype"),
}


@pytest.mark.parametrize("how", NESTED)
def test_what_the_kernel_reads_is_compared(how: str) -> None:
    weight = quantized()
    assert Packed(weight.data, weight.quant_state).shape == (32, 1024)
    change, message = NESTED[how]
    change(weight.quant_state)
    with pytest.raises(CheckpointError) as caught:
        Packed(weight.data, weight.quant_state)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes: codes[: len(codes) // 2], "codes has 8,192 bytes, expected: 16,384"),
        (lambda codes: codes[:0], "codes has 0 bytes"),
        (lambda codes: codes.to(torch.int64), "codes has 131,072 bytes"),
        (lambda codes: codes.bool(), "codes has the dtype torch.bool"),
        (lambda codes: torch.cat([codes, codes])[::2], "codes has gaps"),
    ],
)
def test_codes_are_compared(change: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
    weight = quantized()
    with pytest.raises(CheckpointError) as caught:
        Packed(change(weight.data), weight.quant_state)
    assert message in str(caught.value)


def test_a_table_of_another_shape_with_the_same_numbers() -> None:
    weight = quantized()
    weight.quant_state.code = weight.quant_state.code.view(8, 2)
    assert Packed(weight.data, weight.quant_state).shape == (32, 1024)


def test_scales_that_are_not_nested() -> None:
    weight = quantized(nested=False)
    check_4bit(weight.data, weight.quant_state, (32, 1024))
    with pytest.raises(CheckpointError, match=r"up: quant_state has a shape of 32 x 1024, expected: 64 x 512"):
        check_4bit(weight.data, weight.quant_state, (64, 512), name="up")
    weight.quant_state.absmax = weight.quant_state.absmax[:100]
    with pytest.raises(CheckpointError, match="absmax has 100 numbers, expected: 512"):
        check_4bit(weight.data, weight.quant_state)


def test_8_bits() -> None:
    codes, scales = torch.zeros(3, 5, dtype=torch.int8), torch.ones(3)
    check_8bit(codes, scales, (3, 5), name="up")
    for wrong, message in (
        ((codes, scales[:1]), "up: SCB has 1 numbers, expected: 3"),
        ((codes, scales / 0), "up: SCB has NaN or infinity"),
        ((codes.T, scales), "up: weight has 5 x 3"),
        ((codes.short(), scales), "up: weight has 3 x 5 of torch.int16"),
    ):
        with pytest.raises(CheckpointError) as caught:
            check_8bit(*wrong, (3, 5), name="up")
        assert message in str(caught.value)


def stored(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> list[Path]:
    weight = quantized()
    parts = weight.quant_state.as_dict(packed=True)
    tensors = {NAME: weight.data, **{f"{NAME}.{key}": value.contiguous() for key, value in parts.items()}}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return [folder / "model.safetensors"]


def settings(**changes: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        table = {**json.loads(bytes(tensors[STATE].tolist())), **changes}
        tensors[STATE] = torch.tensor(list(json.dumps(table).encode()), dtype=torch.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({NAME: t[NAME][:100].clone()}), "codes is 100 bytes, expected: 16,384 bytes for 32 x 1024"),
        (lambda t: t.pop(NAME), "codes is none"),
        (lambda t: t.pop(STATE), "lacks its quant_state"),
        (lambda t: t.update({f"{NAME}.absmax": t[f"{NAME}.absmax"][:0]}), "absmax is 0 numbers of U8"),
        (lambda t: t.pop(f"{NAME}.nested_quant_map"), "nested_quant_map is none, expected: one"),
        (lambda t: t.update({STATE: torch.zeros(9, dtype=torch.uint8)}), "cannot be read as JSON"),
        (lambda t: t.update({STATE: torch.zeros(10**6, dtype=torch.uint8)}), "quant_state is 1,000,000 numbers"),
        (settings(shape=[32]), "the shape [32]"),
        (settings(shape=[2**40, 2**40]), "the shape [1099511627776"),
        (settings(shape=[64, 1024]), "absmax is 512 numbers of U8, expected: 1,024"),
        (settings(blocksize=0), "blocksize is 0"),
        (settings(nested_blocksize=10**30), "nested_blocksize is 1000000000"),
        (settings(nested_offset=float("nan")), "nested_offset is nan"),
        (settings(nested_offset=10**400), "nested_offset is 1000000"),
        (settings(dtype="load"), "dtype 'load'"),
        (settings(quant_type="fp4"), "of the kind 'fp4', expected: 'nf4'"),
    ],
)
def test_files_are_compared_before_anything_is_built(change: Any, message: str, tmp_path: Path) -> None:
    check_stored(stored(tmp_path, lambda _: None), "4bit")
    with pytest.raises(CheckpointError) as caught:
        check_stored(stored(tmp_path, change), "4bit")
    assert message in str(caught.value) and NAME in str(caught.value)


@pytest.fixture
def compiled() -> Kernel:
    found = kernel()
    if not isinstance(found, Kernel):
        pytest.skip(f"no kernel here: {found.reason}")
    return found


def test_rows_are_compared_with_the_weights(compiled: Kernel) -> None:
    weight = quantized()
    packed = Packed(weight.data, weight.quant_state)
    assert compiled.product(torch.ones(2, 1024), packed).shape == (2, 32)
    for call in (
        lambda: compiled.product(torch.ones(2, 512), packed),
        lambda: compiled.int8_product(torch.ones(2, 512), packed),
        lambda: compiled.unpack(packed, 1, torch.empty(32, 1024)),
        lambda: compiled.unpack(packed, -1, torch.empty(1, 1024)),
        lambda: compiled.unpack(packed, 0, torch.empty(32, 512)),
        lambda: compiled.half_product(torch.ones(1, 8), torch.ones(4, 16, dtype=torch.bfloat16)),
    ):
        with pytest.raises(ValueError, match="weights of"):
            call()


def test_a_layer_whose_sides_do_not_meet_is_refused() -> None:
    def packed(outputs: int, inputs: int) -> Packed:
        weight = quantized(outputs, inputs)
        return Packed(weight.data, weight.quant_state)

    fitting = [
        packed(128, 64),
        packed(64, 64),
        packed(64, 64),
        packed(64, 128),
        *[packed(192, 64)] * 2,
        packed(64, 192),
    ]
    norm = Norm(torch.ones(64), 1e-6)
    made = LlamaLayer(fitting, (norm, norm), width=32, scaling=1.0)
    assert (made.heads, made.shared, made.inputs) == (4, 2, 64)
    other = packed(64, 64)
    for index in range(len(fitting)):
        if fitting[index].shape != other.shape:
            with pytest.raises(CheckpointError, match="do not fit together"):
                LlamaLayer([*fitting[:index], other, *fitting[index + 1 :]], (norm, norm), width=32, scaling=1.0)
    for norms, width in (((norm, Norm(torch.ones(63), 1e-6)), 32), ((norm, norm), 48), ((norm, norm), 256)):
        with pytest.raises(CheckpointError, match="do not fit together"):
            LlamaLayer(fitting, norms, width=width, scaling=1.0)
