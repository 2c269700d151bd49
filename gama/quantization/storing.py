"""A model folder whose language model is stored in 4 or 8 bits: written weight by weight, read without quantizing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import gama as package
from gama.atomic import move
from gama.bitsandbytes_import import import_bitsandbytes
from gama.checkpoints.apart import is_apart
from gama.checkpoints.architecture import expected_shapes
from gama.checkpoints.combining import some
from gama.checkpoints.file_hashes import FILE, record
from gama.checkpoints.folders import check_output, staged
from gama.checkpoints.reading import Weights, read_shards
from gama.errors import CheckpointError
from gama.model.configuration import GamaConfig
from gama.model.gama import GamaForConditionalGeneration
from gama.quantization import nf4
from gama.quantization.kinds import stored
from gama.quantization.settings import settings

SHARD = 10**9  # bytes of a shard: what stands in memory before it is written
_BESIDE = (".json", ".model", ".txt", ".jinja", ".md")  # tokenizer, processor, licence

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Stored:
    """What was written.

    Attributes:
        quantization: ``4bit`` or ``8bit``.
        layers: matrices in few bits.
        read, written: bytes of weights.
        files: of weights.
    """

    quantization: str
    layers: int
    read: int
    written: int
    files: tuple[str, ...]


def check_source(folder: Path) -> None:
    """Refuse what cannot be quantized.

    Raises:
        CheckpointError: for a folder that is quantized already, or whose language model is changed by LoRA beside it.
    """
    kept = stored(folder)
    if kept != "none":
        raise CheckpointError(f"{folder}: its weights are stored in {kept} already", "give the folder it was made of")
    if is_apart(folder) or (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder}: holds LoRA beside the weights it changes",
            f"gama export merged --model {folder} -o MERGED, and quantize that",
        )


def quantize(folder: Path, out: Path, *, quant: str, advance: Advance = lambda _: None) -> Stored:
    """Write the model of ``folder`` to ``out`` with its language model in 4 or 8 bits.

    No more than one weight and one shard of what is written stand in memory. The bits are those that loading with
    ``quant`` makes; everything else keeps its precision.

    Args:
        folder: a model in 16 or 32 bits.
        out: a folder that does not exist yet, or is empty.
        quant: ``4bit`` or ``8bit``.
        advance: told of bytes read.

    Raises:
        CheckpointError: where the folder cannot be quantized, or does not hold just the weights of its model.
        MissingPackageError: without bitsandbytes.
    """
    check_source(folder)
    check_output(out)
    layers = _layers(folder, quant)
    weights = read_shards(folder)
    _check_keys(folder, weights)
    with staged(out) as made:
        files = _write(made, _tensors(weights, layers, advance))
        _write_config(folder, made, quant)
        for file in folder.iterdir():
            beside = (
                file.suffix in _BESIDE and not file.name.endswith((".index.json", FILE)) and file.name != "config.json"
            )
            if file.is_file() and beside:
                shutil.copy(file, made / file.name)
        written = sum((made / name).stat().st_size for name in files)
        record(made)
    read = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    return Stored(quant, len(layers), read, written, tuple(files))


def _layers(folder: Path, quant: str) -> dict[str, torch.nn.Module]:
    """Name of each weight that is quantized -> bitsandbytes' layer for it, without numbers."""
    config = settings(quant, torch.bfloat16)
    nf4.install()
    from transformers.integrations import replace_with_bnb_linear

    with torch.device("meta"):
        model = GamaForConditionalGeneration(GamaConfig.from_pretrained(folder, local_files_only=True))
    model = replace_with_bnb_linear(
        model, modules_to_not_convert=config.llm_int8_skip_modules, quantization_config=config
    )
    classes = import_bitsandbytes().nn
    kinds = (classes.Linear4bit, classes.Linear8bitLt)
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, kinds)}


def _check_keys(folder: Path, weights: Weights) -> None:
    expected, tied = expected_shapes(GamaConfig.from_pretrained(folder, local_files_only=True))
    lacking = [name for name in expected if name not in weights and name not in tied]
    unknown = [name for name in weights if name not in expected]
    wrong = [n for n, tensor in weights.items() if n in expected and tuple(tensor.shape) != expected[n]]
    for what, names in (("lacks", lacking), ("holds unknown", unknown), ("has other shapes for", wrong)):
        if names:
            raise CheckpointError(f"{folder}: the checkpoint {what} {len(names)} weight(s): {some(names)}")


def _tensors(weights: Weights, layers: dict[str, torch.nn.Module], advance: Advance) -> Iterator[dict[str, Tensor]]:
    """What becomes of each weight, one after the other: itself, or its codes and scales."""
    for name, tensor in weights.items():
        layer = layers.get(name)
        yield {name: tensor} if layer is None else _quantized(name.removesuffix("weight"), layer, tensor)
        advance(tensor.numel() * tensor.element_size())


def _quantized(prefix: str, layer: torch.nn.Module, tensor: Tensor) -> dict[str, Tensor]:
    """The state of bitsandbytes' layer that holds this weight, as transformers stores it."""
    empty = layer.weight
    assert isinstance(empty, torch.nn.Parameter)
    keeps = {k: v for k, v in vars(empty).items() if k not in ("SCB", "CB", "module")}
    layer.weight = type(empty)(tensor.clone(), requires_grad=False, **keeps).to("cpu")
    state = {k: v for k, v in layer.state_dict().items() if not k.startswith("bias") and k != "weight_format"}
    layer.weight = empty
    return {prefix + key: value.detach().contiguous() for key, value in state.items()}


def _write(folder: Path, groups: Iterator[dict[str, Tensor]]) -> list[str]:
    """Write tensors as they come, a shard at a time; returns the names of the files."""
    index: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = size = 0
    for group in groups:
        more = sum(tensor.numel() * tensor.element_size() for tensor in group.values())
        if shard and size + more > SHARD:
            index.append(_write_shard(folder, len(index), shard))
            shard, size = {}, 0
        shard |= group
        size, total = size + more, total + more
    index.append(_write_shard(folder, len(index), shard))
    return _named(folder, index, total)


def _write_shard(folder: Path, number: int, shard: dict[str, Tensor]) -> list[str]:
    save_file(shard, _part(folder, number), metadata={"format": "pt"})
    return list(shard)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number}.safetensors"


def _named(folder: Path, index: list[list[str]], total: int) -> list[str]:
    """Give the shards the names that tell how many there are, and write which holds what."""
    count = len(index)
    names = [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    if count == 1:
        names = ["model.safetensors"]
    for number, name in enumerate(names):
        move(_part(folder, number), folder / name)
    if count > 1:
        places = {key: name for name, keys in zip(names, index, strict=True) for key in keys}
        table = {"metadata": {"total_size": total}, "weight_map": places}
        text = json.dumps(table, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return names


def _write_config(folder: Path, made: Path, quant: str) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = settings(quant, torch.bfloat16).to_dict()
    step = {"gama": package.__version__, "stage": "quantized", "quantization": quant}
    config["lineage"] = [*(config.get("lineage") or []), step]
    (made / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
