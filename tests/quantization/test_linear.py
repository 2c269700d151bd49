"""4-bit layers on a CPU: the products of the stored weights, by bitsandbytes' class, trained and saved as ever."""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gama.bitsandbytes_import import import_bitsandbytes
from gama.quantization import kernels, linear
from gama.quantization.kernels import Kernel, Missing, kernel
from gama.quantization.linear import FEW, CpuLinear4bit, settle

bitsandbytes = import_bitsandbytes()


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Kernel:
    found = kernel()
    if isinstance(found, Missing):
        pytest.skip(f"no kernel here: {found.reason}")
    return found


def layer(outputs: int, inputs: int, *, nested: bool = True, bias: bool = False) -> nn.Module:
    torch.manual_seed(outputs)
    made = nn.Sequential(
        bitsandbytes.nn.Linear4bit(
            inputs, outputs, bias=bias, compute_dtype=torch.bfloat16, quant_type="nf4", compress_statistics=nested
        )
    )
    made = made.to("cpu").eval()
    settle(made, torch.float32)
    return made[0]


def unpacked(module: nn.Module) -> Tensor:
    weight = module.weight
    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()


def error(made: Tensor, want: Tensor) -> float:
    return float((made.float() - want).norm() / want.norm())


@pytest.mark.parametrize("rows", [1, 3, 8, FEW - 5, FEW, FEW + 1, 40])
@pytest.mark.parametrize(("outputs", "inputs", "nested"), [(33, 128, True), (64, 192, False), (65, 4096, True)])
def test_a_product_is_that_of_the_unpacked_weights(rows: int, outputs: int, inputs: int, nested: bool) -> None:
    module = layer(outputs, inputs, nested=nested)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad():
        made = module(x)
    assert made.dtype == torch.float32
    # bfloat16 has 8 bits: rounding x, weights and the result to it gives 0.003; rounding to int8 gives 0.007
    tolerance = 0.005 if linear.matrix_dtype() == torch.bfloat16 else 1e-5
    assert error(made, x @ unpacked(module).T) < (0.009 if rows > FEW and outputs % 32 == 0 else tolerance)


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 50])
@pytest.mark.parametrize(("outputs", "inputs", "nested"), [(32, 64, True), (96, 192, False), (64, 4160, True)])
def test_a_product_in_int8(rows: int, outputs: int, inputs: int, nested: bool, compiled: Kernel) -> None:
    if not compiled.int8_outputs:
        pytest.skip("this processor has no products in int8")
    module = layer(outputs, inputs, nested=nested)
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)) * torch.logspace(-3, 3, rows)[:, None]
    x[0, 64:128] = 0  # a block without a scale
    made, want = compiled.int8_product(x, module.readable()), x @ unpacked(module).T
    assert max(error(m, w) for m, w in zip(made, want, strict=True)) < 0.012  # small rows beside large ones, too


def test_products_in_int8_are_the_same_by_several_threads(compiled: Kernel) -> None:
    if not compiled.int8_outputs:
        pytest.skip("this processor has no products in int8")
    packed, x = layer(160, 128).readable(), torch.randn(20, 128)
    one, threads = compiled.int8_product(x, packed), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(compiled.int8_product(x, packed), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("flaw", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rows", [1, FEW + 1])
def test_what_is_no_number_stays_none(flaw: float, rows: int) -> None:
    module, x = layer(32, 128), torch.randn(rows, 128)
    x[0, 70] = flaw
    with torch.no_grad():
        made = module(x)
    assert not made[0].isfinite().any() and made[1:].isfinite().all()


def test_shapes_biases_and_precisions() -> None:
    module = layer(24, 64, bias=True)
    x = torch.randn(2, 3, 64)
    with torch.no_grad():
        want = x @ unpacked(module).T + module.bias
        assert error(module(x), want) < 0.005
        half = module(x.bfloat16())
    assert half.shape == (2, 3, 24) and half.dtype == torch.bfloat16
    assert error(half, want) < 0.01


def test_the_class_is_bitsandbytes_own_and_what_is_stored_stays() -> None:
    module = layer(32, 64)
    assert isinstance(module, bitsandbytes.nn.Linear4bit) and type(module) is CpuLinear4bit
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with torch.no_grad():
        module(torch.randn(1, 64)), module(torch.randn(40, 64))
    after = module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_gradient_passes() -> None:
    module = layer(32, 64)
    x = torch.randn(4, 64, requires_grad=True)
    module(x).sum().backward()
    assert error(x.grad, unpacked(module).sum(0).expand(4, 64)) < 1e-4  # type: ignore[arg-type]


def test_a_copy_has_weights_of_its_own() -> None:
    module = layer(32, 64)
    x = torch.randn(1, 64)
    with torch.no_grad():
        want = module(x)
        other = copy.deepcopy(module)
        module.weight.data.zero_()
        assert torch.equal(other(x), want)
        assert not torch.equal(module(x), want)


def test_what_the_kernel_cannot_read_is_left_to_bitsandbytes() -> None:
    module = layer(32, 96)  # blocks run across rows
    assert module.readable() is None
    x = torch.randn(2, 96)
    with torch.no_grad():
        assert error(module(x), x @ unpacked(module).T) < 0.02


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert kernel.__wrapped__() == Missing("there is no C compiler")
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert kernel.__wrapped__() == Missing("GAMA_KERNELS=0")


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'nf4.c:1: fatal error: immintrin.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    found = kernel.__wrapped__()
    assert isinstance(found, Missing) and "fatal error: immintrin.h" in found.reason
    assert list((tmp_path / "home" / "kernels").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["haswell", "skylake-avx512"])
def test_the_kernels_of_other_processors(processor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags = {flag for line in Path("/proc/cpuinfo").read_text().splitlines() for flag in line.split()}
    if processor != "haswell" and "avx512f" not in flags:
        pytest.skip("this processor lacks AVX512")
    monkeypatch.setattr(kernels, "_FLAGS", ("-O2", f"-march={processor}", "-fPIC", "-shared", "-fopenmp"))
    monkeypatch.setenv("GAMA_HOME", str(tmp_path))
    found = kernel.__wrapped__()
    assert isinstance(found, Kernel) and found.name != "AVX512-BF16"
    module = layer(33, 192)
    packed = module.readable()
    assert found.int8_outputs == 0
    for rows in (1, 4, 5, 11):
        x = torch.randn(rows, 192)
        assert error(found.product(x, packed), x @ unpacked(module).T) < 1e-5
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.003)):
        assert error(found.unpack(packed, 0, torch.empty(33, 192, dtype=dtype)), unpacked(module)) < tolerance


def test_the_source_needs_no_more_than_a_compiler() -> None:
    compiler = os.environ.get("CC", "cc")
    strict = ("-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    command = [*compiler.split(), *kernels._FLAGS, *strict, *map(str, kernels._SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("rows", [1, 3, FEW + 1])
def test_a_head_in_half_the_bytes_loses_nothing(rows: int) -> None:
    head, embedding = nn.Linear(200, 36, bias=False), nn.Embedding(36, 200)
    linear._halve_head(head, embedding)
    assert type(head) is nn.Linear  # its weights need all of float32
    head.weight.data = head.weight.data.bfloat16().float()
    before = head.weight.data.clone()
    x = torch.randn(2, rows, 200) if rows == 1 else torch.randn(rows, 200)
    linear._halve_head(head, embedding)
    assert type(head) is linear.CpuHead and isinstance(head, nn.Linear) and head.weight.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(head(x), x @ before.T, atol=1e-5, rtol=1e-5)
    tied = nn.Linear(200, 36, bias=False)
    tied.weight = embedding.weight
    linear._halve_head(tied, embedding)
    assert type(tied) is nn.Linear
