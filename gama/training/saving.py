"""The model a stage leaves: whole, or apart from a language model that it did not train."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from gama.checkpoints.apart import ADAPTER, BASE, TOWER, Base, base_record
from gama.checkpoints.file_hashes import record
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.training.checkpoints import FINAL
from gama.training.files import move_in
from gama.training.stages import has_lora

_LANGUAGE_MODEL = "language_model."


def save(gama: GamaForConditionalGeneration, processor: GamaProcessor, output: Path) -> None:
    """Write model and processor under a temporary name and move them into place."""
    partial = _emptied(output)
    gama.save_pretrained(partial)
    processor.save_pretrained(partial)
    record(partial)
    move_in(partial, output, last="config.json")


def save_apart(gama: GamaForConditionalGeneration, processor: GamaProcessor, output: Path, base: Base) -> None:
    """Write everything but the language model's own weights, which stay in ``base``.

    Args:
        gama: its LoRA, where it has some, injected and not merged.
        processor: written as it is.
        output: the folder; see :mod:`gama.checkpoints.apart`.
        base: where the language model lies.
    """
    partial = _emptied(output)
    partial.mkdir()
    gama.config.save_pretrained(partial)
    _as_stored(partial / "config.json", base.folder / "config.json")
    if gama.generation_config is not None:
        gama.generation_config.save_pretrained(partial)
    processor.save_pretrained(partial)
    state = gama.state_dict()
    tower = {n: t.detach().cpu().contiguous() for n, t in state.items() if not n.startswith(_LANGUAGE_MODEL)}
    save_file(tower, partial / TOWER, metadata={"format": "pt"})
    if has_lora(gama):
        _write_adapter(state, gama.language_model.peft_config["default"], partial)
    (partial / BASE).write_text(base_record(base, output), encoding="utf-8")
    record(partial)
    move_in(partial, output, last="config.json")


def _as_stored(config: Path, base: Path) -> None:
    """Let a configuration say how the base's weights are stored, and not how they were held while training."""
    ours, theirs = (json.loads(file.read_text(encoding="utf-8")) for file in (config, base))
    for key in ("dtype", "quantization_config"):
        ours.pop(key, None)
        ours |= {key: theirs[key]} if key in theirs else {}
    config.write_text(json.dumps(ours, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _emptied(output: Path) -> Path:
    partial = output / FINAL
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def _write_adapter(state: Mapping[str, Tensor], lora: Any, folder: Path) -> None:
    pairs = {name.replace(".default.weight", ".weight"): t for name, t in state.items() if ".lora_" in name}
    weights = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in pairs.items()}
    save_file(weights, folder / ADAPTER, metadata={"format": "pt"})
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "bias": "none",
        "target_modules": sorted({name.partition(".lora_")[0] for name in pairs}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
