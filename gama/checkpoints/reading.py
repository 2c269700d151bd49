"""Weight files of any origin, opened without running anything in them: keys, shapes, and tensors on demand.

Tensors are views of the mapped file, not for writing: reading one costs page cache, not memory of this process.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gama.checkpoints.apart import BASE, TOWER
from gama.checkpoints.json_files import read_table
from gama.checkpoints.safetensors_header import Place, read_header
from gama.checkpoints.torch_file import read_torch_file
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
    tensors, beside = read_torch_file(path)
    return Weights(tensors, (path,), beside)


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
    weight_map = read_table(folder / index, "an index of shards").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(value, str) for value in weight_map.values()):
        raise CheckpointError(f"{folder / index}: cannot be read as an index of shards: it has no 'weight_map'")
    names = sorted(set(weight_map.values()))
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
    places = read_header(path)
    with path.open("rb") as file:
        # read-only: a private writable mapping larger than the machine's memory would be refused
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return {key: _view(mapped, place) for key, place in places.items()}


def _view(mapped: mmap.mmap, place: Place) -> Tensor:
    dtype = DTYPES[place.dtype]
    if place.count == 0:
        return torch.empty(place.shape, dtype=dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=place.count, offset=place.begin).view(place.shape)
