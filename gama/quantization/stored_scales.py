"""Codes and scales as the headers of weight files describe them, compared before a library builds anything of them.

bitsandbytes reads what a matrix in 4 bits is (its shape, its blocks) from JSON in a tensor beside the codes. Where that
makes no sense, transformers says that there were "some issues"; here the tensor is named. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gama.checkpoints.json_files import parse_table
from gama.checkpoints.safetensors_header import Place, read_header
from gama.errors import CheckpointError

_STATE = ".quant_state.bitsandbytes__"
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # of bitsandbytes
_DTYPES = ("float32", "float16", "bfloat16")
_MOST_STATE = 4096  # bytes of JSON
_LARGEST = 1e30  # in magnitude, of what is added to scales
_AGAIN = "the file is damaged: get it again"


def check_stored(files: Iterable[Path], quantization: str) -> None:
    """Compare every quantized weight of these files with its scales.

    Args:
        files: of weights.
        quantization: what the folder says it is stored in; ``4bit`` and ``8bit`` are compared.

    Raises:
        CheckpointError: naming the weight and the part of it that does not fit.
    """
    found = {name: (file, place) for file in files for name, place in read_header(file).items()}
    places = {name: place for name, (_, place) in found.items()}
    if quantization == "8bit":
        for name, place in places.items():
            if place.dtype == "I8":
                _check_8bit(name, place, places)
    if quantization != "4bit":
        return
    for name, (file, place) in found.items():
        if _STATE in name:
            weight, _, kind = name.partition(_STATE)
            _check_4bit(weight, kind, _state(weight, name, file, place), places)
    stray = [n for n, p in places.items() if p.dtype == "U8" and n.endswith(".weight") and not _has_state(n, places)]
    if stray:
        raise CheckpointError(f"{stray[0]}: lacks its quant_state", _AGAIN)


def _has_state(weight: str, places: Mapping[str, Place]) -> bool:
    return any(f"{weight}{_STATE}{kind}" in places for kind in ("nf4", "fp4"))


def _state(weight: str, name: str, file: Path, place: Place) -> dict[str, Any]:
    if place.dtype != "U8" or not 0 < place.count <= _MOST_STATE:
        raise _wrong(weight, "quant_state", f"{place.count:,} numbers of {place.dtype}", "JSON as U8")
    with file.open("rb") as opened:
        opened.seek(place.begin)
        return parse_table(opened.read(place.end - place.begin), f"{file}: {name}")


def _check_4bit(weight: str, kind: str, state: Mapping[str, Any], places: Mapping[str, Place]) -> None:
    shape = state.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in shape):
        raise _wrong(weight, "quant_state", f"the shape {str(shape)[:40]}", "two sides")
    if kind not in ("nf4", "fp4") or state.get("quant_type") != kind:
        raise _wrong(weight, "quant_state", f"of the kind {str(state.get('quant_type'))[:20]!r}", f"{kind!r}")
    nested = "nested_offset" in state
    for name in ("dtype", "nested_dtype") if nested else ("dtype",):
        if state.get(name) not in _DTYPES:
            raise _wrong(weight, "quant_state", f"{name} {str(state.get(name))[:20]!r}", " or ".join(_DTYPES))
    count = math.prod(shape)
    scales = math.ceil(count / _block_size(weight, "blocksize", state))
    expected = {"absmax": ("U8" if nested else "F32", scales), "quant_map": ("F32", 16)}
    if nested:
        size = _block_size(weight, "nested_blocksize", state)
        expected |= {"nested_absmax": ("F32", math.ceil(scales / size)), "nested_quant_map": ("F32", 256)}
        offset = state["nested_offset"]
        if type(offset) not in (int, float) or not abs(offset) < _LARGEST:  # NaN is not
            raise _wrong(weight, "nested_offset", str(offset)[:20], "a finite number")
    for part in _PARTS:
        _check_part(weight, part, places.get(f"{weight}.{part}"), expected.get(part))
    codes = places.get(weight)
    if codes is None or codes.end - codes.begin != math.ceil(count / 2):
        found = "none" if codes is None else f"{codes.end - codes.begin:,} bytes"
        raise _wrong(weight, "codes", found, f"{math.ceil(count / 2):,} bytes for {shape[0]} x {shape[1]}")


def _block_size(weight: str, name: str, state: Mapping[str, Any]) -> int:
    given = state.get(name)
    if type(given) is not int or given not in _BLOCK_SIZES:
        raise _wrong(weight, name, str(given)[:20], "a power of two from 32 to 4096")
    return given


def _check_part(weight: str, part: str, place: Place | None, expected: tuple[str, int] | None) -> None:
    if (place is None) != (expected is None):
        raise _wrong(weight, part, "none" if place is None else "one", "one" if place is None else "none")
    if place is not None and expected is not None and (place.dtype, place.count) != expected:
        raise _wrong(weight, part, f"{place.count:,} numbers of {place.dtype}", f"{expected[1]:,} of {expected[0]}")


def _check_8bit(weight: str, codes: Place, places: Mapping[str, Place]) -> None:
    scales = places.get(weight.removesuffix("weight") + "SCB")
    if scales is None:
        raise CheckpointError(f"{weight}: lacks its scales (SCB)", _AGAIN)
    if len(codes.shape) != 2 or (scales.dtype, scales.count) != ("F32", codes.shape[0]):
        raise _wrong(weight, "SCB", f"{scales.count:,} numbers of {scales.dtype}", f"{codes.shape[:1]} of F32")


def _wrong(weight: str, part: str, found: str, expected: str) -> CheckpointError:
    return CheckpointError(f"{weight}: {part} is {found}, expected: {expected}", _AGAIN)
