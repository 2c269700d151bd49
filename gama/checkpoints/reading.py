"""Weight files of any origin, opened without running anything in them: keys, shapes, and tensors on demand.

Tensors are views of the mapped file, not for writing: reading one costs page cache, not memory of this process.
"""

from __future__ import annotations

import json
import math
import mmap
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gama.checkpoints.apart import BASE, TOWER
from gama.errors import CheckpointError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The dtypes of safetensors that are read and written here."""

PICKLED = (".bin", ".pth", ".pt", ".ckpt")
"""Suffixes of files that torch.save wrote."""

_NESTS = ("state_dict", "model", "module")  # where training scripts keep the weights: LAION-CLAP, LAVIS, DeepSpeed
_HEADER_LIMIT = 100 * 2**20  # bytes; the bound of the safetensors format itself
_ALIGNED = 8


@dataclass(frozen=True, eq=False)
class Weights(Mapping[str, Tensor]):
    """The tensors of one file or of all shards of a folder, by key.

    Attributes:
        tensors: key -> view of the mapped file.
        files: what was read.
        beside: what else the files hold, e.g. ``optimizer``; it is left alone.
    """

    tensors: dict[str, Tensor]
    files: tuple[Path, ...]
    beside: tuple[str, ...] = field(default=())

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class _Ignored:
    """Stands for NumPy's numbers in a pickle (a best score, a seed): built and never used, so nothing of them runs."""

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


_IGNORED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Ignored, name) for name in ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
]


def read_weights(path: Path) -> Weights:
    """Open one weight file.

    Raises:
        CheckpointError: for a file that is none, is cut short, or holds anything but weights.
    """
    if not path.is_file():
        raise CheckpointError(f"no weight file {str(path)!r}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty", "download it again")
    if path.suffix == ".safetensors":
        return Weights(_safetensors(path), (path,))
    return _pickled(path)


def read_shards(folder: Path) -> Weights:
    """Open all weights of a folder: what its index lists, or its only kind of weight files.

    Raises:
        CheckpointError: where there are none, a listed shard is missing, or two shards hold one key.
    """
    files = weight_files(folder)
    if not files:
        raise CheckpointError(f"{folder}: no weight files", "*.safetensors or *.bin are expected")
    tensors: dict[str, Tensor] = {}
    beside: list[str] = []
    for file in files:
        part = read_weights(file)
        doubled = next((key for key in part if key in tensors), None)
        if doubled is not None:
            raise CheckpointError(f"{folder}: two shards hold {doubled}; one is {file.name}")
        tensors.update(part.tensors)
        beside += part.beside
    return Weights(tensors, tuple(files), tuple(dict.fromkeys(beside)))


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder that make up its model; safetensors where it has both kinds."""
    indices = [n for n in ("model.safetensors.index.json", "pytorch_model.bin.index.json") if (folder / n).is_file()]
    whole = [name for name in indices if not _missing(folder, _listed(folder, name))]
    if indices:
        return _indexed(folder, (whole or indices)[0])
    if (folder / BASE).is_file() and (folder / TOWER).is_file():
        return [folder / TOWER]  # apart from its language model; LoRA may lie beside it
    for pattern in (
        *("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin"),
        *("adapter_model.safetensors", "adapter_model.bin", "*.safetensors"),
    ):
        if files := sorted(folder.glob(pattern)):
            return files
    return _only_pickled(folder)


def _only_pickled(folder: Path) -> list[Path]:
    states = ("optimizer", "scheduler", "rng_state", "training_args", "trainer_state")
    return [p for p in sorted(folder.iterdir()) if p.suffix in PICKLED and not p.name.startswith(states)]


def _listed(folder: Path, index: str) -> list[str]:
    """The files that an index names."""
    try:
        weight_map = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(value) for value in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / index}: cannot be read as an index of shards: {error}") from error
    outside = [n for n in names if Path(n).name != n or n in ("", ".", "..")]
    if outside:
        raise CheckpointError(f"{folder / index}: lists {outside[0]!r}, which is no file name")
    return names


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (folder / name).is_file()]


def _indexed(folder: Path, index: str) -> list[Path]:
    names = _listed(folder, index)
    missing = _missing(folder, names)
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} shards of {index} are missing: {', '.join(missing[:5])}",
            "download them into that folder; LLaMA's own shards come from meta-llama on Hugging Face",
        )
    # shards beside the index, such as the model-00003-of-00002 of Llama-2-7b-chat-hf-qformer, are not passed over
    return sorted({folder / n for n in names} | _unlisted(folder, index))


def _unlisted(folder: Path, index: str) -> set[Path]:
    return set(folder.glob("model-*-of-*.safetensors")) if index.startswith("model.") else set()


# -- safetensors -------------------------------------------------------------------------------------------------------


def _safetensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        size = path.stat().st_size
        (length,) = struct.unpack("<Q", file.read(8)) if size >= 8 else (0,)
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise CheckpointError(f"{path}: not a safetensors file, or cut short", "download it again")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise CheckpointError(f"{path}: the header of the safetensors file is no JSON") from error
        # read-only: a private writable mapping larger than the machine's memory would be refused
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header of the safetensors file is no table")
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return {key: _view(mapped, 8 + length, entry, f"{path}: {key}") for key, entry in entries.items()}


def _view(mapped: mmap.mmap, start: int, entry: Any, where: str) -> Tensor:
    try:
        kind, shape = entry["dtype"], [int(side) for side in entry["shape"]]
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where} has no dtype, shape and place") from error
    if kind not in DTYPES:
        raise CheckpointError(f"{where} is of dtype {kind!r}", f"known: {', '.join(DTYPES)}")
    dtype = DTYPES[kind]
    count = math.prod(shape)
    if min([*shape, begin]) < 0 or end - begin != count * dtype.itemsize:
        raise CheckpointError(f"{where}: shape {shape} does not fill the bytes {begin} to {end}")
    if start + end > len(mapped):
        raise CheckpointError(f"{where}: the file is cut short", "download it again")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start + begin).view(shape)


# -- torch.save --------------------------------------------------------------------------------------------------------


def _pickled(path: Path) -> Weights:
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"PK" and not zipped:
        raise CheckpointError(f"{path}: the file is cut short", "download it again")
    if not zipped and magic[:1] != b"\x80":
        raise CheckpointError(f"{path}: neither a safetensors file nor one that torch.save wrote")
    try:
        with torch.serialization.safe_globals(_IGNORED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about storage classes of old files
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(*_refusal(path, str(error))) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AssertionError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: damaged or cut short: {reason}", "download it again") from error
    tensors, beside = _weights_in(loaded)
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights: {_described(loaded)}")
    return Weights(tensors, (path,), beside)


def _refusal(path: Path, reason: str) -> tuple[str, str]:
    asked = re.search(r"GLOBAL (\S+)", reason)
    what = f"asks for {asked.group(1)!r} beside weights" if asked else "is not the kind that holds weights alone"
    return (
        f"{path}: refused: the pickle {what}, and loading it could run code",
        "use a file of weights alone: a state dict, or safetensors",
    )


def _weights_in(loaded: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a state dict, or of the one inside what a training script saved, and the rest's names."""
    if not isinstance(loaded, Mapping):
        return {}, ()
    for name in _NESTS:
        inner = loaded.get(name)
        if isinstance(inner, Mapping) and any(map(_is_weight, inner.values())):
            rest = tuple(str(key) for key in loaded if key != name)
            return {str(k): v.detach() for k, v in inner.items() if _is_weight(v)}, rest
    rest = tuple(str(key) for key, value in loaded.items() if not _is_weight(value))
    return {str(k): v.detach() for k, v in loaded.items() if _is_weight(v)}, rest


def _is_weight(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )


def _described(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        return f"a table of {', '.join(map(str, list(loaded)[:5])) or 'nothing'}"
    return f"a {type(loaded).__name__}"
