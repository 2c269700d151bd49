"""Samples of every type become float32 of full scale [-1, 1), or are refused where their scale cannot be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gama.audio
from gama.audio import samples_of
from gama.errors import AudioError


@pytest.mark.parametrize(
    ("dtype", "lowest", "middle", "quarter"),
    [
        ("int8", -(2**7), 0, 2**5),
        ("uint8", 0, 2**7, 2**7 + 2**5),
        ("int16", -(2**15), 0, 2**13),
        ("uint16", 0, 2**15, 2**15 + 2**13),
        ("int32", -(2**31), 0, 2**29),
        ("uint32", 0, 2**31, 2**31 + 2**29),
        ("int64", -(2**15), 0, 2**13),
        ("float16", -1, 0, 0.25),
        ("float32", -1, 0, 0.25),
        ("float64", -1, 0, 0.25),
    ],
)
def test_every_width(dtype: str, lowest: float, middle: float, quarter: float) -> None:
    array = np.array([[lowest, middle, quarter]], dtype=dtype)
    samples = samples_of(array)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, [[-1.0, 0.0, 0.25]])


def test_lists_of_integers_are_scaled_as_16_bits() -> None:
    np.testing.assert_array_equal(samples_of([-32768, 0, 8192]), [-1.0, 0.0, 0.25])
    np.testing.assert_array_equal(samples_of([[0.5, -0.5], [0.0, 1.0]]), [[0.5, -0.5], [0.0, 1.0]])
    np.testing.assert_array_equal(samples_of([0, 0]), [0.0, 0.0])
    assert samples_of([]).shape == (0,)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(samples_of(torch.tensor([-32768, 8192])), [-1.0, 0.25])
    np.testing.assert_array_equal(samples_of(torch.tensor([-32768, 8192], dtype=torch.int16)), [-1.0, 0.25])
    np.testing.assert_array_equal(samples_of(torch.tensor([0, 160], dtype=torch.uint8)), [-1.0, 0.25])
    np.testing.assert_array_equal(samples_of(torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True)), [0.5])


def test_float32_is_not_copied() -> None:
    array = np.zeros(5, np.float32)
    assert samples_of(array) is array


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ([0, 40_000], "0 to 40000 in 64 bits"),
        (np.array([0, -(2**20)]), "full scale cannot be told"),
        ([0, 1, -1], "floats cut to integers?"),
        (np.array([0, 9], np.uint64), "unsigned integers of 64 bits"),
        ([True, False], "samples of bool"),
        (np.array([1j]), "samples of complex128"),
        (["a", "b"], "samples of <U1"),
        ([[1.0, 2.0], [3.0]], "rows of different lengths"),
        ([None, 1.0], "samples of object"),
    ],
)
def test_what_has_no_scale_is_refused(array: Any, expected: str) -> None:
    with pytest.raises(AudioError) as refused:
        samples_of(array, "my clip")
    assert str(refused.value).startswith("my clip: ") and expected in str(refused.value)


def test_load_takes_lists_and_tensors() -> None:
    ramp = np.arange(-8_000, 8_000)
    expected = ramp.astype(np.float32) / 32_768
    for array in (ramp, ramp.tolist(), ramp.astype(np.int16), expected.tolist()):
        np.testing.assert_array_equal(gama.audio.load(array, sampling_rate=16_000).samples, expected)
    assert gama.audio.load([expected.tolist()] * 2, sampling_rate=16_000).channels == 2
