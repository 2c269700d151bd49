"""Files of torch.save, read without running anything in them.

``torch.load`` with ``weights_only`` does the reading. Values of other libraries that training scripts save beside
weights (numpy arrays, the state of a random generator, a Namespace of options) are replaced by an empty stand-in, so
that nothing of theirs runs, and passed over; every other class is refused by name.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gama.checkpoints.stand_ins import check_stand_in
from gama.errors import CheckpointError

_NESTS = ("state_dict", "model", "module")  # where training scripts keep the weights: LAION-CLAP, LAVIS, DeepSpeed
_MOST_PICKLE = 16 * 2**20  # bytes; that of a 7B model has 100 kB, and reading one takes 50 times its size
_MOST_RECORDS = 200_000
_AGAIN = "download it again"


class _PassedOver:
    """Stands for a value of another library in a pickle: built and never used, so nothing of that library runs."""

    def __new__(cls, *_: Any, **__: Any) -> _PassedOver:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric", "numpy.core.numeric")
_RANDOM = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_HARMLESS = (
    *(f"{module}.{name}" for module in _NUMPY for name in ("scalar", "_reconstruct", "_frombuffer")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.random._pickle.{name}" for name in ("__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor")),
    *(f"numpy.random._{name.lower().removesuffix('dxsm')}.{name}" for name in _RANDOM),
    *(f"numpy.random.bit_generator.{name}" for name in ("SeedSequence", "__pyx_unpickle_SeedSequence")),
    *("argparse.Namespace", "types.SimpleNamespace"),
)
"""What training scripts save beside weights, by the names that pickles give it."""

_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(_PassedOver, name) for name in _HARMLESS]


def read_torch_file(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a file of torch.save by key, and the names of what else it holds.

    Raises:
        CheckpointError: for another kind of file, a damaged one, one that asks for more than weights, or one that would
            take far more memory than it has bytes.
    """
    with path.open("rb") as file:
        start = file.read(512)
    zipped = start[:4] == b"PK\x03\x04"
    if zipped:
        _check_records(path)
    else:
        _check_kind(path, start)
    loaded = _loaded(path, zipped)
    tensors, beside = _weights_in(loaded)
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights: {_described(loaded)}")
    for key, tensor in tensors.items():
        _check_tensor(key, tensor, path)
    return tensors, beside


def _loaded(path: Path, zipped: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_GLOBALS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about storage classes of old files
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(*_refusal(path, str(error))) from None
    except MemoryError as error:
        raise CheckpointError(f"{path}: asks for more memory than there is", _AGAIN) from error
    except Exception as error:  # what torch raises for bytes that were changed has no bounds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "allocate memory" in reason:  # torch's word for it is a RuntimeError
            raise CheckpointError(f"{path}: asks for more memory than there is", _AGAIN) from error
        raise CheckpointError(f"{path}: damaged or cut short: {reason}", _AGAIN) from error


# -- before torch reads it ---------------------------------------------------------------------------------------------


def _check_kind(path: Path, start: bytes) -> None:
    check_stand_in(path, start)
    if start[:4] == b"GGUF":
        raise CheckpointError(
            f"{path}: a GGUF file of llama.cpp, which is not read here", "give the model as safetensors"
        )
    if start[:1] != b"\x80":
        raise CheckpointError(f"{path}: neither a safetensors file nor one that torch.save wrote")
    with path.open("rb") as file:
        _check_pickle(file.read(_MOST_PICKLE), path)


def _check_records(path: Path) -> None:
    """Refuse what is no archive of weights: a cut one, a program of TorchScript, a bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(entries, path)
            described = next((e for e in entries if e.filename.endswith("/data.pkl")), None)
            if described is not None:
                _check_pickle(archive.read(described), path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: the file is cut short or damaged: {error}", _AGAIN) from error


def _check_entries(entries: list[zipfile.ZipInfo], path: Path) -> None:
    names = [entry.filename for entry in entries]
    if any(re.fullmatch(r"[^/]+/constants\.pkl", name) for name in names):
        raise CheckpointError(
            f"{path}: is a TorchScript archive, a program with its weights; only weights are read here",
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth') writes them, where you trust it",
        )
    if len(entries) > _MOST_RECORDS:
        raise CheckpointError(f"{path}: {len(entries):,} records, which is no file of weights")
    packed = next((entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise CheckpointError(
            f"{path}: {packed.filename!r} is compressed, which torch.save never does: refused as a bomb",
            "unpack it and give the file of weights in it",
        )
    large = next((e for e in entries if e.filename.endswith(".pkl") and e.file_size > _MOST_PICKLE), None)
    if large is not None:
        raise CheckpointError(
            f"{path}: {large.filename!r} has {large.file_size:,} bytes, of weights at most {_MOST_PICKLE:,} were "
            "expected: refused as a bomb"
        )


def _check_pickle(data: bytes, path: Path) -> None:
    """Refuse the one class of torch's own list that makes any number of bytes out of none."""
    if b"bytearray" in data:
        raise CheckpointError(*_refusal(path, "GLOBAL bytearray"))


# -- what came of it ---------------------------------------------------------------------------------------------------


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
            rest = tuple(_name(key) for key in loaded if key != name)
            return {_name(k): v.detach() for k, v in inner.items() if _is_weight(v)}, rest
    rest = tuple(_name(key) for key, value in loaded.items() if not _is_weight(value))
    return {_name(k): v.detach() for k, v in loaded.items() if _is_weight(v)}, rest


def _name(key: Any) -> str:
    """A key as text that can be shown and written."""
    text = key if isinstance(key, str) else str(key)[:200]
    return text.encode("utf-8", "backslashreplace").decode()


def _is_weight(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )


def _check_tensor(key: str, tensor: Tensor, path: Path) -> None:
    """Refuse one that is larger than its bytes: a few of them would unfold to any size."""
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held:
        raise CheckpointError(
            f"{path}: {key}: shape {tuple(tensor.shape)} takes more bytes than the {held:,} stored for it",
            "save it by tensor.contiguous()",
        )


def _described(loaded: Any) -> str:
    if isinstance(loaded, Mapping):
        return f"a table of {', '.join(map(_name, list(loaded)[:5])) or 'nothing'}"
    return f"a {type(loaded).__name__}"
