"""A folder becomes a model on a device, in a precision; every key accounted for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gama.bitsandbytes_import import import_bitsandbytes
from gama.checkpoints.apart import TOWER, is_apart, joined
from gama.checkpoints.bundled import model_folder
from gama.checkpoints.folder_checks import SAMPLING_RATE, check_value, check_weights, read_config
from gama.checkpoints.reading import weight_files
from gama.errors import CheckpointError, DeviceError, GamaError, MissingPackageError
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.quantization.kinds import agreed, stored
from gama.quantization.stored_scales import check_stored
from gama.quiet import quiet_loading

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_COMPLAINTS = {
    "missing_keys": "lacks",
    "unexpected_keys": "holds unknown",
    "mismatched_keys": "has other shapes for",
}
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
    settings = read_config(folder)
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
            files = _weight_files(whole, folder)
            check_weights(folder, settings, files, quantized=kept != "none")
            with _named(folder):
                check_stored(files, kept)
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
    except GamaError:
        raise
    except Exception as error:  # what transformers raises for settings and weights that make no sense has no bounds
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise CheckpointError(f"{folder}: the model cannot be loaded: {reason}") from error
    check_inputs(folder, model, processor)
    if held in ("4bit", "8bit"):
        _settle(model, precision, folder)
    model.eval()
    return model, processor


def _settle(model: GamaForConditionalGeneration, precision: torch.dtype, folder: Path) -> None:
    from gama.quantization.linear import check_quantized, settle, without_scales

    _check({"missing_keys": [f"{name} (its scales)" for name in without_scales(model)]}, folder)
    with _named(folder):
        check_quantized(model)
    settle(model, precision)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Put the folder in front of what is wrong with one of its weights."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error.message}", error.hint) from None


def check_inputs(folder: Path, model: GamaForConditionalGeneration, processor: GamaProcessor) -> None:
    """Compare the processor of a folder with its model: the clips and ids it makes are those that the model reads.

    Raises:
        CheckpointError: naming the value that differs.
    """
    config, extractor, tokenizer = model.config, processor.feature_extractor, processor.tokenizer
    where, text = str(folder / "processor_config.json"), config.text_config
    check_value(where, "sampling_rate", extractor.sampling_rate, SAMPLING_RATE)
    check_value(where, "feature_size", extractor.feature_size, config.audio_config.num_mel_bins)
    check_value(where, "num_frames", extractor.num_frames, config.audio_config.num_frames)
    check_value(where, "num_audio_tokens", processor.num_audio_tokens, config.num_audio_tokens)
    check_value(where, "audio_token_id", processor.audio_token_id, config.audio_token_id)
    ends = getattr(model.generation_config, "eos_token_id", None)
    if not all(type(end) is int for end in (ends if isinstance(ends, list) else [ends] if ends is not None else [])):
        raise CheckpointError(f"{folder / 'generation_config.json'}: eos_token_id is {str(ends)[:60]}, no ids")
    begins = getattr(text, "bos_token_id", None)
    if begins is not None and tokenizer.bos_token_id is not None:
        check_value(str(folder / "tokenizer.json"), f"id of {tokenizer.bos_token}", tokenizer.bos_token_id, begins)
    known = tokenizer.convert_tokens_to_ids(processor.audio_token)
    if known is not None and known != tokenizer.unk_token_id:
        check_value(str(folder / "tokenizer.json"), f"id of {processor.audio_token}", known, config.audio_token_id)
    elif 0 <= config.audio_token_id < min(len(tokenizer), text.vocab_size):
        token = tokenizer.convert_ids_to_tokens(config.audio_token_id)
        raise CheckpointError(f"{folder}: audio_token_id is {config.audio_token_id}, which is the token {token!r}")


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


def _weight_files(whole: Path, folder: Path) -> list[Path]:
    """The files that make up the model: those transformers reads, and the tower of one kept apart."""
    found = [file for file in weight_files(whole) if file.suffix == ".safetensors"]
    if not found:
        raise CheckpointError(f"{folder}: no weight files", "*.safetensors are expected")
    return [*found, folder / TOWER] if is_apart(folder) else found


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
