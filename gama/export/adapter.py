"""LoRA leaves a model as a PEFT folder that fits the language model alone."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gama.bitsandbytes_import import import_bitsandbytes
from gama.checkpoints.apart import base_of, is_apart
from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError, MissingPackageError
from gama.export.folders import free_name, new_folder
from gama.export.language_model import LANGUAGE_MODEL, write_language_model
from gama.export.text_parity import Parity, compare, probe, write_report
from gama.inference.loading import load_model
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"(?:base_model\.model\.)?(?:language_model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
_SMALL = 2**30  # bytes of weights up to which a comparison is computed in float32
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Adapter:
    """LoRA of a language model.

    Attributes:
        folder: where it lies.
        config: its ``adapter_config.json``.
        pairs: module of the language model -> A (rank, in) and B (out, rank).
    """

    folder: Path
    config: Mapping[str, Any]
    pairs: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def rank(self) -> int:
        """The rank that all its matrices share."""
        return next(iter(self.pairs.values()))[0].shape[0]


@dataclass(frozen=True)
class Source:
    """A model that is to be exported.

    Attributes:
        folder: the model.
        adapter: its LoRA; None where it holds none.
        stored: precision of its weights on the disk: ``float32``, ``bfloat16`` or ``float16``.
        small: whether it is small enough to compute with in float32 whatever it is stored in.
    """

    folder: Path
    adapter: Adapter | None
    stored: str
    small: bool

    def load(self, device: str) -> tuple[GamaForConditionalGeneration, GamaProcessor]:
        """The model without its LoRA."""
        dtype = "float32" if self.small else self.stored
        return load_model(self.folder, quant="none", device=device, dtype=dtype, adapter=False)


def open_source(model: str | Path | None, adapter: Path | None = None) -> Source:
    """A model, and the LoRA inside it, in its folder ``adapter``, or in a folder of its own.

    Args:
        model: a name or a folder.
        adapter: a folder with LoRA for this model.

    Raises:
        CheckpointError: for a folder that holds no model or no plain LoRA.
    """
    folder = model_folder(model)
    found: Path | None = adapter
    if found is None:
        found = next((each for each in (folder, folder / "adapter") if (each / CONFIG).is_file()), None)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    holding = {folder, base_of(folder).folder} if is_apart(folder) else {folder}
    size = sum(f.stat().st_size for each in holding for f in each.glob("*.safetensors"))
    return Source(
        folder,
        None if found is None else read_adapter(found),
        stored if stored in _DTYPES else "float32",
        size < _SMALL,
    )


def read_adapter(folder: Path) -> Adapter:
    """LoRA as PEFT or ``gama convert --keep-adapter`` writes it.

    Keys may name modules of the language model or of the whole GAMA, with or without ``base_model.model.`` and
    ``.default``.

    Raises:
        CheckpointError: for files that are missing, no plain LoRA, or incomplete.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: holds no LoRA: {Path(error.filename or WEIGHTS).name} is missing") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: its LoRA cannot be read: {' '.join(str(error).split())}") from error
    _require_plain(config, folder)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"{folder}: {key} is no LoRA weight of a language model")
        halves.setdefault(match[1], {})[match[2]] = tensor
    if not halves:
        raise CheckpointError(f"{folder}: its LoRA holds no weights")
    if lonely := [name for name, half in halves.items() if len(half) < 2]:
        raise CheckpointError(f"{folder}: LoRA of {lonely[0]} has only one of its two matrices")
    pairs = {name: (half["A"], half["B"]) for name, half in sorted(halves.items())}
    if {a.shape[0] for a, _ in pairs.values()} != {config["r"]}:
        raise CheckpointError(f"{folder}: {CONFIG} says rank {config['r']}, the weights have another")
    return Adapter(folder, config, pairs)


def _require_plain(config: Any, folder: Path) -> None:
    """Refuse what the merge or the renaming would not carry over."""
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise CheckpointError(f"{folder}: holds an adapter of type {kind!r}, 'LORA' was expected")
    wrong = [k for k in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(k)]
    if config.get("bias", "none") != "none":
        wrong.append("bias")
    if wrong or not isinstance(config.get("r"), int) or not isinstance(config.get("lora_alpha"), (int, float)):
        raise CheckpointError(
            f"{folder}: only plain LoRA can be exported; {CONFIG} has {', '.join(wrong) or 'no rank'}"
        )


def apply(model: GamaForConditionalGeneration, adapter: Adapter) -> None:
    """Put LoRA into the language model, beside its weights.

    Raises:
        CheckpointError: where it belongs to another model.
    """
    _check_fit(model, adapter)
    peft = _peft()
    peft.inject_adapter_in_model(_lora_config(adapter, list(adapter.pairs)), model.language_model)
    state = {
        f"{name}.lora_{part}.weight": t for name, ab in adapter.pairs.items() for part, t in zip("AB", ab, strict=True)
    }
    result = peft.set_peft_model_state_dict(model.language_model, state)
    if result.unexpected_keys:
        raise CheckpointError(f"{adapter.folder}: LoRA of {result.unexpected_keys[0]} finds no place")
    model.eval()


def export_adapter(
    model: str | Path | None,
    output: Path,
    *,
    adapter: Path | None = None,
    base: str | None = None,
    with_base: bool = False,
    device: str = "auto",
) -> Parity:
    """Write a model's LoRA as a PEFT folder: ``PeftModel.from_pretrained(language_model, output)`` applies it.

    Args:
        model: a name or a folder.
        output: the new folder; ``parity.json`` in it compares the model with language model and adapter put together.
        adapter: where the LoRA lies, if not in the model's folder.
        base: what ``adapter_config.json`` calls the base model.
        with_base: whether to write the language model without LoRA beside it, as ``output/language_model``.
        device: where to compare.

    Raises:
        CheckpointError: for a model without LoRA, LoRA of another model, an output that exists.
    """
    free_name(output)
    source = open_source(model, adapter)
    if source.adapter is None:
        raise CheckpointError(
            f"{source.folder}: holds no LoRA: a training stage adds it to the weights at its end",
            "gama convert --keep-adapter keeps that of a released checkpoint; LoRA elsewhere: --adapter DIR",
        )
    gama, processor = source.load(device)
    stored = getattr(torch, source.stored)
    with new_folder(output) as work:
        _write(gama, source.adapter, work, base)
        if with_base:
            _write_base(gama, processor, work / LANGUAGE_MODEL, stored)
        apply(gama, source.adapter)
        probes = probe(gama, processor)
        del gama
        again, _ = source.load(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 asks transformers 5.23 for a name that goes away
            again.language_model = _peft().PeftModel.from_pretrained(_plain(again, work, with_base), work)
        parity = compare(again.eval(), probes, stored=stored)
        facts = {"kind": "adapter", "source": str(source.folder), "adapter": str(source.adapter.folder)}
        write_report(work, parity, {**facts, "rank": source.adapter.rank, "license": again.config.license})
    return parity


def _plain(gama: GamaForConditionalGeneration, work: Path, with_base: bool) -> Any:
    """The language model the adapter is tried on: the one that was written, where one was."""
    if not with_base:
        return gama.language_model
    from transformers import AutoModelForCausalLM

    weights = next(gama.get_input_embeddings().parameters())
    plain = AutoModelForCausalLM.from_pretrained(work / LANGUAGE_MODEL, dtype=weights.dtype, local_files_only=True)
    return plain.to(weights.device)


def _write_base(gama: GamaForConditionalGeneration, processor: GamaProcessor, folder: Path, dtype: torch.dtype) -> None:
    write_language_model(gama, processor, folder, dtype)
    # writing in another precision has changed the weights in memory as well
    gama.language_model.to(next(gama.audio_tower.parameters()).dtype)


def _write(gama: GamaForConditionalGeneration, adapter: Adapter, folder: Path, base: str | None) -> None:
    _check_fit(gama, adapter)
    leaves = {name.rpartition(".")[2] for name in adapter.pairs}
    alike = {
        n for n, m in gama.language_model.named_modules() if n.rpartition(".")[2] in leaves and hasattr(m, "weight")
    }
    config = _lora_config(adapter, sorted(leaves) if alike == set(adapter.pairs) else list(adapter.pairs))
    config.task_type = "CAUSAL_LM"
    config.base_model_name_or_path = base or adapter.config.get("base_model_name_or_path")
    config.inference_mode = True
    config.save_pretrained(str(folder))
    weights = {
        f"base_model.model.{name}.lora_{part}.weight": tensor.contiguous()
        for name, pair in adapter.pairs.items()
        for part, tensor in zip("AB", pair, strict=True)
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)


def _peft() -> Any:
    """The package peft, which imports bitsandbytes where there is one."""
    with suppress(MissingPackageError):
        import_bitsandbytes()  # in our way, before peft does it in its own
    import peft

    return peft


def _lora_config(adapter: Adapter, targets: list[str]) -> Any:
    return _peft().LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.config["lora_alpha"],
        lora_dropout=float(adapter.config.get("lora_dropout", 0.0)),
        use_rslora=bool(adapter.config.get("use_rslora", False)),
        target_modules=targets,
    )


def _check_fit(gama: GamaForConditionalGeneration, adapter: Adapter) -> None:
    modules = dict(gama.language_model.named_modules())
    for name, (a, b) in adapter.pairs.items():
        module = modules.get(name)
        if module is None or not hasattr(module, "out_features"):
            raise CheckpointError(f"{adapter.folder}: the language model has no {name}", "LoRA of another base model?")
        held = (module.out_features, module.in_features)  # the weight itself may be packed into 4 bits
        if held != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1]:
            shape = f"{b.shape[0]} x {a.shape[1]}"
            raise CheckpointError(
                f"{adapter.folder}: LoRA of {name} is for {shape} weights, the language model has "
                f"{held[0]} x {held[1]}",
                "LoRA of another base model?",
            )
