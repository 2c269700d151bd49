"""A recipe: one YAML file a stage. Read safely, checked whole, resolved and kept beside the weights."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from gama.errors import RecipeError

Objective = Literal["text", "tagging", "naming", "answer"]
Part = Literal["encoder", "aggregator", "qformer", "projectors", "language_model"]


@dataclass(frozen=True)
class Data:
    """What a stage reads.

    Attributes:
        manifests: files of rows; empty for a stage that reads text alone.
        scenes: symbolic scenes an epoch (text pre-training).
        folds: folds of real recordings to train on; None for all.
        tasks: kinds of question drawn from a scene's truth; None for all.
        questions: questions a clip and step.
        augmentation: share of clips that are equalised and masked.
    """

    manifests: tuple[str, ...] = ()
    scenes: int = 0
    folds: tuple[int, ...] | None = None
    tasks: tuple[str, ...] | None = None
    questions: int = 8
    augmentation: float = 0.0


@dataclass(frozen=True)
class Loss:
    """How answers count.

    Attributes:
        train_on_inputs: whether questions are targets too.
        key_weight: weight of the words that decide whether an answer is right.
        naming: weight of the loss that names each soft token's word, beside the answers'.
    """

    train_on_inputs: bool = False
    key_weight: float = 1.0
    naming: float = 0.0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in the language model."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Recipe:
    """One stage.

    Attributes:
        name: shown and kept in the lineage.
        objective: what is learned: ``text`` (language model), ``tagging`` (encoder), ``naming`` (alignment of the
            tower with the language model's words) or ``answer`` (the five stages).
        starts_from: stage whose output it continues; or one for ``audio_tower`` and one for ``language_model``;
            empty to start from nothing.
        model: arguments of GamaConfig for a start from nothing, or the name of a YAML file that holds them.
        trainable: the parts that learn.
        lora: adapters for the language model.
        data, loss: see there.
        training: arguments of transformers' TrainingArguments, which stand at the top level of the file.
    """

    name: str
    objective: Objective
    starts_from: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    trainable: tuple[Part, ...] = ()
    lora: Lora | None = None
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    training: Mapping[str, Any] = field(default_factory=dict)

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values, as it is kept beside the weights."""
        plain = _plain(dataclasses.asdict(self))
        return {k: v for k, v in plain.items() if k != "training"} | plain["training"]


_SECTIONS: dict[str, type] = {"data": Data, "loss": Loss, "lora": Lora}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a stage's file.

    Args:
        path: the YAML file.
        overrides: ``key=value`` or ``section.key=value``, values as YAML.

    Raises:
        RecipeError: for YAML that is not plain, unknown keys (the nearest is named) or wrong values.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}", "recipes are plain YAML without tags") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: expected keys and values, found {type(raw).__name__}")
    for override in overrides:
        _override(raw, override)
    return _build(raw, path)


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text!r} is not key=value", "for example: --set max_steps=100")
    *sections, name = key.strip().split(".")
    target = raw
    for section in sections:
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {key}: {section!r} is no section")
        target = inner
    try:
        target[name] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {key}: {value!r} is not a YAML value") from None


def training_names() -> frozenset[str]:
    """The names of TrainingArguments that a recipe may set."""
    from transformers import TrainingArguments

    return frozenset(f.name for f in dataclasses.fields(TrainingArguments) if f.init) - {"output_dir"}


def _build(raw: dict[str, Any], path: Path) -> Recipe:
    if isinstance(raw.get("model"), str):
        raw["model"] = _beside(path, raw["model"])
    known = {f.name for f in dataclasses.fields(Recipe)} - {"training"}
    training = {k: v for k, v in raw.items() if k not in known}
    allowed = training_names()
    for key in training:
        if key not in allowed:
            raise RecipeError(f"{path.name}: unknown key {key!r}{_nearest(key, allowed | known)}")
    values: dict[str, Any] = {"name": path.stem, **{k: v for k, v in raw.items() if k in known}}
    for section, kind in _SECTIONS.items():
        if values.get(section) is not None:
            values[section] = _section(kind, values[section], section, path)
    if isinstance(values.get("starts_from"), str):
        values["starts_from"] = dict.fromkeys(("audio_tower", "language_model"), values["starts_from"])
    if values.get("objective") not in get_args(Objective):
        raise RecipeError(
            f"{path.name}: objective is {values.get('objective')!r}, expected one of {', '.join(get_args(Objective))}"
        )
    values["trainable"] = tuple(values.get("trainable") or ())
    unknown = [p for p in values["trainable"] if p not in get_args(Part)]
    if unknown:
        raise RecipeError(f"{path.name}: trainable: no part {unknown[0]!r}{_nearest(unknown[0], get_args(Part))}")
    return Recipe(**{k: v for k, v in values.items() if v is not None}, training=training)


def _beside(path: Path, name: str) -> Any:
    file = path.parent / name
    if not file.is_file():
        raise RecipeError(f"{path.name}: model names {name!r}, which does not lie beside it")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _section(kind: type, raw: Any, name: str, path: Path) -> Any:
    fields = {f.name for f in dataclasses.fields(kind)}
    if not isinstance(raw, dict):
        raise RecipeError(f"{path.name}: {name!r} is {raw!r}, expected keys and values")
    for key in raw:
        if key not in fields:
            raise RecipeError(f"{path.name}: unknown key {name}.{key}{_nearest(key, fields)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})


def _nearest(key: str, names: Any) -> str:
    near = difflib.get_close_matches(key, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(names)[:12])} …"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
