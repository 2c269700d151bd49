"""A folder becomes a model on a device, in a precision; every key accounted for."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file

from gama.bitsandbytes_import import import_bitsandbytes
from gama.checkpoints.apart import TOWER, is_apart, joined
from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError, DeviceError, GamaError, MissingPackageError
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.quantization.kinds import agreed, stored
from gama.quiet import quiet_loading

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_COMPLAINTS = {
    "missing_keys": "lacks",
    "unexpected_keys": "holds unknown",
    "mismatched_keys": "has other shapes for",
}
# what transformers raises for a folder whose configuration or weights make no sense
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ArithmeticError, ImportError),
    SafetensorError,
    StrictDataclassError,
)
_SLOW = 2**30  # bytes of weights from which loading shows its progress on a terminal


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        DeviceError: for a device this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"no device is called {name!r}", "give auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cpu":
        return device
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) < count:
            return device
        raise DeviceError(f"device {name!r} is not available: PyTorch sees {count} CUDA device(s)", "--device cpu")
    if device.type == "mps" and torch.backends.mps.is_available():
        return device
    raise DeviceError(f"device {name!r} is not available here", "--device cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of that name; ``auto`` is float32 on a CPU and bfloat16 elsewhere."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise GamaError(f"no precision is called {name!r}", f"give auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def load_model(
    name_or_dir: str | Path | None, *, quant: str, device: str, dtype: str, adapter: bool = True
) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
    """See :func:`gama.inference.engine.load`; ``adapter`` says whether LoRA beside the weights is applied."""
    folder = model_folder(name_or_dir)
    _check_type(folder)
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    kept = stored(folder)
    held = agreed(folder, quant)
    extra = _quantizing(held, kept, precision)
    if adapter and (folder / "adapter_config.json").is_file():
        with suppress(MissingPackageError):
            import_bitsandbytes()  # before peft imports it, and lets it ask a hub for a kernel
    try:
        with (
            joined(folder, adapter=adapter) as whole,
            quiet_loading(progress=sys.stderr.isatty() and _weight_bytes(whole) >= _SLOW),
        ):
            model, info = GamaForConditionalGeneration.from_pretrained(
                whole,
                dtype=precision,
                device_map={"": target} if held != "none" or target.type != "cpu" else None,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are reported by name; refused below
                **extra,
            )
            _check(info, folder)
            if is_apart(folder):
                _put_tower(model, folder)
            processor = GamaProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: the model cannot be loaded: {reason}") from error
    if held in ("4bit", "8bit"):
        from gama.quantization.linear import settle, without_scales

        _check({"missing_keys": [f"{name} (its scales)" for name in without_scales(model)]}, folder)
        settle(model, precision)
    model.eval()
    return model, processor


def _quantizing(held: str, kept: str, precision: torch.dtype) -> dict[str, Any]:
    """What ``from_pretrained`` is given beside the folder, which itself says what its weights are stored in."""
    if held == "none":
        return {}
    if held == "gptq":
        from gama.quantization.gptq import check_packages

        check_packages()
        return {}
    from gama.quantization import nf4
    from gama.quantization.settings import settings

    config = settings(held, precision)
    nf4.install()
    return {} if kept != "none" else {"quantization_config": config}


def _put_tower(model: GamaForConditionalGeneration, folder: Path) -> None:
    """Give a model that was read from its base the audio tower of its own folder."""
    own = load_file(folder / TOWER)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("language_model.")}
    if wrong := set(own) ^ set(state):
        raise CheckpointError(f"{folder / TOWER}: {len(wrong)} weight(s) are missing or too many: {min(wrong)}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{folder / TOWER}: {_described((name, tuple(tensor.shape), tuple(state[name].shape)))}"
            )
        state[name].copy_(tensor)


def _check_type(folder: Path) -> None:
    """The configuration is one of GAMA: transformers would fill any other with the values of the released model."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {' '.join(str(error).split())}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "gama":
        raise CheckpointError(f"{folder}: holds a model of type {kind!r}, 'gama' was expected")


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _check(info: dict[str, Any], folder: Path) -> None:
    """Every key of the checkpoint has its place and every weight its key."""
    for kind, what in _COMPLAINTS.items():
        names = sorted(map(_described, info.get(kind) or ()))
        if names:
            some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            raise CheckpointError(f"{folder}: the checkpoint {what} {len(names)} weight(s): {some}")


def _described(key: str | tuple[str, tuple[int, ...], tuple[int, ...]]) -> str:
    if isinstance(key, str):
        return key
    name, found, expected = key
    return f"{name} ({' x '.join(map(str, found))}, {' x '.join(map(str, expected))} was expected)"
