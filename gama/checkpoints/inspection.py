"""What a checkpoint is, from its keys and shapes: parts, numbers, dead weights, what it lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gama.checkpoints.apart import base_of, is_apart
from gama.checkpoints.json_files import read_table
from gama.checkpoints.names import COMPUTED, dropped_because, lora_slot, our_name
from gama.checkpoints.opening import Opened, opened
from gama.checkpoints.origins import (
    TITLES,
    Kind,
    Shape,
    component,
    foreign_because,
    missing_parts,
    recognise,
    released_name,
)
from gama.checkpoints.reading import Weights, read_weights

_TAP_NORMS = ("model.audio_encoder.norm_j.", "model.audio_encoder.norm_k.", "audio_tower.encoder.tap_norms.")
_PROJECTIONS = (
    *("audio_proj_qformer.0.weight", "audio_proj.1.weight"),
    *("qformer_projector.fc1.weight", "audio_tower.projector.fc.weight"),
)
_TAP_REASON = "norm of a middle layer that the released aggregator never reads"
_ORDER = (
    *("language model", "LoRA", "audio encoder", "Q-Former", "aggregator", "Q-Former projector"),
    *("aggregator projector", "projector", "prefix positions", "audio tower", "text tower", "projections"),
    *("contrastive heads", "pretraining heads", "other"),
)


@dataclass(frozen=True)
class Component:
    """One part of what a checkpoint holds.

    Attributes:
        name: the part.
        tensors: how many.
        parameters: floating-point numbers in them.
        dtypes: their dtypes.
        dead_tensors: tensors that can influence no output of a GAMA model.
        dead_parameters: floating-point numbers in these.
    """

    name: str
    tensors: int
    parameters: int
    dtypes: list[str]
    dead_tensors: int
    dead_parameters: int


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    Attributes:
        path: as given.
        kind: a word for programs.
        title: the same for people.
        files: name -> bytes of what was read.
        components: its parts.
        facts: sizes that the shapes show.
        dead: reason -> tensors.
        missing: parts that a whole GAMA needs and that are not here.
        unknown: keys that belong to no known part.
        beside: what else the files hold (an optimizer, a step); it is not read.
    """

    path: str
    kind: Kind | str
    title: str
    files: dict[str, int]
    components: list[Component]
    facts: dict[str, Any]
    dead: dict[str, int]
    missing: list[str]
    unknown: list[str]
    beside: list[str]

    @property
    def tensors(self) -> int:
        """How many there are."""
        return sum(part.tensors for part in self.components)

    @property
    def parameters(self) -> int:
        """Floating-point numbers."""
        return sum(part.parameters for part in self.components)


def inspect(path: Path) -> Inspection:
    """Look at a weight file, a folder or a zip archive without running anything in it.

    Raises:
        CheckpointError: for what is no checkpoint, is cut short, or asks for more than weights.
    """
    with opened(path) as given:
        weights = _with_adapter(given) if path.is_dir() else given.weights
        shapes = {key: tuple(weights[key].shape) for key in weights}
        kind = recognise(shapes)
        config = _config(given.folder) if path.is_dir() or given.folder != path.parent else {}
        names = {key: released_name(key, kind) for key in weights}
        why = {key: reason for key, name in names.items() if (reason := _dead(name, kind, config))}
        parts = _components({names[k]: (weights[k], k in why) for k in weights})
        elsewhere = base_of(path).folder if is_apart(path) else None
        return Inspection(
            path=str(path),
            kind=kind,
            title=_title(kind, config, lora=any(map(lora_slot, names.values()))),
            files={file.name: file.stat().st_size for file in weights.files},
            components=parts,
            facts=_facts({names[k]: shape for k, shape in shapes.items()}, config)
            | ({} if elsewhere is None else {"language_model_of": str(elsewhere)}),
            dead=dict(Counter(why.values())),
            missing=missing_parts(kind, [p.name for p in parts] + ["language model"] * (elsewhere is not None)),
            unknown=sorted(key for key, name in names.items() if key not in why and not _known(name, kind)),
            beside=list(weights.beside),
        )


def _config(folder: Path) -> dict[str, Any]:
    """The model's configuration beside its weights; empty where there is none."""
    file = folder / "config.json"
    return read_table(file) if file.is_file() else {}


def _with_adapter(given: Opened) -> Weights:
    """A folder's weights, and the adapter that lies beside them."""
    file = given.folder / "adapter_model.safetensors"
    if not file.is_file() or file in given.weights.files:
        return given.weights
    tensors = given.weights.tensors | read_weights(file).tensors
    return Weights(tensors, (*given.weights.files, file), given.weights.beside)


def _title(kind: Kind, config: Mapping[str, Any], *, lora: bool) -> str:
    model = config.get("model_type")
    if kind == "gama":
        return f"{TITLES[kind]}, " + ("stage 2 to 5: these hold the same keys" if lora else "stage 1: no LoRA")
    if kind == "ours" and config.get("qformer_config", {}) is None:
        return "LTU in this project's form (no Q-Former)"
    if model is None or kind == "ours":
        return TITLES[kind]
    listed = config.get("architectures")
    made = ", ".join(map(str, listed)) if isinstance(listed, list) else ""
    folder = f"Hugging Face folder of a {model} model" + (f" ({made})" if made else "")
    return folder if kind in ("language model", "unknown") else f"{folder}: {TITLES[kind]}"


def _dead(name: str, kind: Kind, config: Mapping[str, Any]) -> str | None:
    if name.startswith(_TAP_NORMS):
        return _TAP_REASON if kind != "ours" or config.get("aggregator") == "released" else None
    if kind in ("ours", "clap", "unknown"):
        return None
    reason = dropped_because(name, "released") or foreign_because(name)
    return None if reason == COMPUTED else reason


def _known(name: str, kind: Kind) -> bool:
    if kind in ("gama", "ltu", "cavmae", "lavis"):
        known = our_name(name) is not None or lora_slot(name) is not None
        return known or dropped_because(name, "released") == COMPUTED
    return kind == "unknown" or component(name) != "other"


def _components(tensors: Mapping[str, tuple[Tensor, bool]]) -> list[Component]:
    parts: dict[str, list[tuple[Tensor, bool]]] = {}
    for name, entry in tensors.items():
        parts.setdefault(component(name), []).append(entry)
    return [_component(name, parts[name]) for name in sorted(parts, key=_ORDER.index)]


def _component(name: str, entries: Iterable[tuple[Tensor, bool]]) -> Component:
    entries = list(entries)
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor, _ in entries)
    return Component(
        name,
        len(entries),
        sum(_numbers(tensor) for tensor, _ in entries),
        [dtype for dtype, _ in dtypes.most_common()],
        sum(dead for _, dead in entries),
        sum(_numbers(tensor) for tensor, dead in entries if dead),
    )


def _numbers(tensor: Tensor) -> int:
    return tensor.numel() if tensor.is_floating_point() else 0


def _facts(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes that say which base model fits."""
    facts: dict[str, Any] = {}
    for name, shape in shapes.items():
        if name.endswith(_PROJECTIONS):
            facts["language_model_width"] = shape[0]
        elif name.endswith("embed_tokens.weight"):
            facts |= {"vocabulary": shape[0], "language_model_width": shape[1]}
        elif name.endswith("query_tokens"):
            facts["queries"] = shape[1] if len(shape) == 3 else shape[0]
        elif slot := lora_slot(name.removeprefix("language_model.")):
            facts.setdefault("lora_rank", min(shape))
            facts["lora_modules"] = facts.get("lora_modules", 0) + (slot[1] == "A")
    if config.get("model_type") == "gama":
        aggregates = config.get("qformer_config", {}) is not None
        facts |= {"aggregator": config.get("aggregator")} if aggregates else {}
        facts["license"] = config.get("license")
    return facts
