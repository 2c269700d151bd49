"""Arrays, tensors and lists of samples become float32 of full scale [-1, 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gama.audio.source import named_error

Array = Any
"""A numpy array, a tensor of torch or another library with ``__array__``, or a list of numbers (of lists of them)."""

_INTEGERS = {  # zero and full scale, as libsndfile has them for files of that width
    "int8": (0, 2**7),
    "uint8": (2**7, 2**7),
    "int16": (0, 2**15),
    "uint16": (2**15, 2**15),
    "int32": (0, 2**31),
    "uint32": (2**31, 2**31),
}


def is_array(value: object) -> bool:
    """Whether it holds samples rather than names a file or holds the bytes of one."""
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return False
    return isinstance(value, (list, tuple, np.ndarray)) or hasattr(value, "__array__")


def samples_of(array: Array, given: str = "array") -> NDArray[np.float32]:
    """The samples as float32, the shape kept; float32 ones are not copied.

    Floats are taken as they are. Integers are divided by the full scale of their width: 2**7, 2**15 or 2**31; unsigned
    ones are centred first, as 8-bit WAV files are. 64 bits are what Python integers become, in a list or a tensor made
    of one, so no file has samples of that width: values of at most 16 bits are read as 16-bit samples, others are
    refused.

    Args:
        given: what messages call it.

    Raises:
        AudioError: booleans, complex numbers, text, rows of different lengths, or 64-bit integers whose full scale
            cannot be told.
    """
    values = _as_numpy(array, given)
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is refused where the clip has a name
            return values.astype(np.float32, copy=False)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        values = _narrowed(values, given)
    if values.dtype.name not in _INTEGERS:
        expected = "floats in [-1, 1] or integers of 8, 16 or 32 bits were expected"
        raise named_error(given, f"samples of {values.dtype} were given, {expected}")
    zero, scale = _INTEGERS[values.dtype.name]
    if not zero:
        return values.astype(np.float32) / np.float32(scale)
    signed = (values.astype(np.int64) - zero).astype(np.float32)
    return np.divide(signed, np.float32(scale), dtype=np.float32)


def _as_numpy(array: Array, given: str) -> NDArray[np.generic]:
    if hasattr(array, "detach"):  # a tensor of torch, perhaps on a GPU, perhaps of a type numpy does not know
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array
        array = array.numpy()
    try:
        values = np.asarray(array)
    except (ValueError, TypeError) as failed:  # rows of different lengths
        raise named_error(given, "rows of different lengths were given, (N,) or (C, N) was expected") from failed
    if not values.size and isinstance(array, (list, tuple)):
        return values.astype(np.float32)
    return values


def _narrowed(values: NDArray[np.generic], given: str) -> NDArray[np.int16]:
    lowest, highest = (int(values.min()), int(values.max())) if values.size else (0, 0)
    hint = "convert them to int16 or int32, or to floats in [-1, 1]"
    if values.dtype.kind == "u":
        raise named_error(given, "unsigned integers of 64 bits were given, whose zero cannot be told", hint)
    if lowest < -(2**15) or highest >= 2**15:
        spans = f"integers from {lowest} to {highest} in 64 bits were given"
        raise named_error(given, f"{spans}, whose full scale cannot be told", hint)
    if (lowest, highest) != (0, 0) and lowest >= -1 and highest <= 1:
        raise named_error(given, f"integers from {lowest} to {highest} were given: floats cut to integers?", hint)
    return values.astype(np.int16)
