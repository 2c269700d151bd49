"""Folders with 4-bit weights whose lengths, tables and settings were changed: an error that names the tensor, or the
right answer; never a read beyond the end of what is there."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torture.worker_pool import Result, judged, run_isolated

QUESTION = "what happened?"
_STATE = "quant_state.bitsandbytes__nf4"
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_LAYERS = 1
_LINEAR = "language_model.model.layers.{}.{}.weight"
_MODULES = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)

Tensors = dict[str, Tensor]


def run(seed: int, count: int, *, processes: int = 2) -> Result:
    """Try ``count`` changed folders; a quarter of them by bitsandbytes' kernels alone."""
    with tempfile.TemporaryDirectory(prefix="gama-bad-quantized-") as scratch:
        base = Path(scratch) / "base"
        write_base(base)
        inputs = [(seed, index, str(base)) for index in range(count)]
        ours, theirs = inputs[count // 4 :], inputs[: count // 4]
        results = [
            run_isolated("torture.bad_quantized:attempt", ours, processes=processes),
            run_isolated(
                "torture.bad_quantized:attempt", theirs, processes=processes, environment={"GAMA_KERNELS": "0"}
            ),
        ]
    return Result(count, sum(r.held for r in results), sum((r.failures for r in results), ()))


def write_base(folder: Path) -> None:
    """gama-mini of one layer in 4 bits, without a record of its files: what is tested is what loading tells itself."""
    from gama.checkpoints.bundled import model_folder
    from gama.checkpoints.file_hashes import FILE
    from gama.quantization.storing import quantize

    small = folder.with_name("small")
    shutil.copytree(model_folder(), small, ignore=shutil.ignore_patterns(FILE, "*.onnx"))
    config = json.loads((small / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = _LAYERS
    (small / "config.json").write_text(json.dumps(config))
    later = tuple(f"language_model.model.layers.{number}." for number in range(_LAYERS, 4))
    tensors = {k: v for k, v in load_file(small / "model.safetensors").items() if not k.startswith(later)}
    save_file(tensors, small / "model.safetensors", metadata={"format": "pt"})
    quantize(small, folder, quant="4bit")
    (folder / FILE).unlink()


def attempt(seed: int, index: int, base: str) -> tuple[str, str]:
    """Change a folder, load it and ask: the verdict."""
    chance = random.Random(f"{seed} {index}")
    expected = _answer(Path(base))
    with tempfile.TemporaryDirectory(prefix="gama-bad-quantized-") as scratch:
        folder = Path(shutil.copytree(base, Path(scratch) / "model"))
        tensors = load_file(folder / "model.safetensors")
        told = [_change(tensors, chance) for _ in range(chance.choice((1, 1, 1, 2)))]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

        def wrong() -> str | None:
            answer = _answered(folder)
            return None if answer == expected else f"answered {answer!r}, not {expected!r}"

        kind, text = judged(wrong)
        if kind == "held" and text != "answered" and "language_model" not in text:
            kind, text = "wrong", f"names no tensor: {text}"
        return kind, f"{'; '.join(told)}: {text}"


@cache
def _answer(folder: Path) -> str:
    return _answered(folder)


def _answered(folder: Path) -> str:
    import gama

    return gama.load(folder, runtime="torch").ask(None, QUESTION, max_new_tokens=8).text


def _change(tensors: Tensors, chance: random.Random) -> str:
    name = _LINEAR.format(chance.randrange(_LAYERS), chance.choice(_MODULES))
    changes: list[Callable[[Tensors, str, random.Random], str]] = [
        _settings,
        _settings,
        _length,
        _length,
        _values,
        _drop,
    ]
    return chance.choice(changes)(tensors, name, chance)


def _settings(tensors: Tensors, name: str, chance: random.Random) -> str:
    """Another value of what bitsandbytes keeps as JSON in a tensor."""
    key = f"{name}.{_STATE}"
    if key not in tensors:
        return "nothing"
    text = bytes(tensors[key].tolist()).decode()
    if chance.random() < 0.1:
        text = chance.choice(["", "{}", "[]", "null", "{", "[" * 20_000, text[:-1], text + "x", "\xff"])
        tensors[key] = _packed(text)
        return f"{key} = {text[:40]!r}"
    try:
        table: dict[str, Any] = json.loads(text)
    except ValueError:
        return "nothing"
    if not isinstance(table, dict) or not table:
        return "nothing"
    field = chance.choice(sorted(table))
    table[field] = _setting(field, table[field], chance)
    if chance.random() < 0.1:
        del table[field]
    tensors[key] = _packed(json.dumps(table))
    return f"{key}: {field} = {str(table.get(field, 'gone'))[:60]}"


def _setting(field: str, value: Any, chance: random.Random) -> Any:
    odd: list[Any] = [
        None,
        "x",
        -1,
        0,
        1,
        3,
        64,
        128,
        4096,
        2**31,
        2**63,
        10**30,
        1.5,
        float("nan"),
        float("inf"),
        [],
        {},
    ]
    if field == "shape" and isinstance(value, list) and len(value) == 2:
        n, k = value
        odd += [[2 * n, k], [n, 2 * k], [k, n], [n], [n, k, 1], [0, k], [-n, -k], [n * k, 1], [1, n * k], [n + 64, k]]
        odd += [[n, k + 64], [2**40, 2**40], [n // 2, k], ["a", "b"], [1.0, 2.0], [None, None]]
    if field == "nested_offset":  # another finite one is contents, which a hash tells and no length
        odd = [None, "x", [], {}, float("nan"), float("inf"), -float("inf"), 10**400, "1.0", True]
    if field.endswith("dtype"):
        odd += ["float16", "load", "uint8", "nn", "Tensor", "int4"]
    if field == "quant_type":
        odd += ["fp4", "nf8", "NF4"]
    return chance.choice(odd)


def _length(tensors: Tensors, name: str, chance: random.Random) -> str:
    """Fewer or more numbers than the shape makes them."""
    key = name if chance.random() < 0.3 else f"{name}.{chance.choice(_PARTS)}"
    if key not in tensors:
        return "nothing"
    old = tensors[key]
    flat = old.reshape(-1)
    how = chance.choice(["empty", "cut", "half", "one", "longer", "double", "turned", "rows"])
    new = {
        "empty": flat[:0],
        "cut": flat[: max(0, len(flat) - 1 - chance.randrange(len(flat) or 1))],
        "half": flat[: len(flat) // 2],
        "one": flat[:1],
        "longer": torch.cat([flat, flat[:1]]),
        "double": torch.cat([flat, flat]),
        "turned": flat.reshape(1, -1),
        "rows": old.reshape(-1, 2) if old.numel() % 2 == 0 else flat,
    }[how]
    tensors[key] = new.clone().contiguous()
    return f"{key} {how}: {tuple(old.shape)} to {tuple(new.shape)}"


def _values(tensors: Tensors, name: str, chance: random.Random) -> str:
    """Numbers that are none, or of another dtype."""
    key = name if chance.random() < 0.3 else f"{name}.{chance.choice(_PARTS)}"
    if key not in tensors or not tensors[key].numel():
        return "nothing"
    old = tensors[key].clone()
    if old.is_floating_point() and chance.random() < 0.5:
        old.view(-1)[chance.randrange(old.numel())] = chance.choice([float("nan"), float("inf"), -float("inf")])
        tensors[key] = old
        return f"{key} holds no number"
    dtype = chance.choice(
        [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.uint8]
    )
    tensors[key] = old.to(dtype)
    return f"{key} as {dtype}"


def _drop(tensors: Tensors, name: str, chance: random.Random) -> str:
    key = chance.choice([name, *(f"{name}.{part}" for part in (*_PARTS, _STATE))])
    tensors.pop(key, None)
    return f"{key} gone"


def _packed(text: str) -> Tensor:
    return torch.tensor(list(text.encode("latin-1")), dtype=torch.uint8)
