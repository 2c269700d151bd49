"""A recipe: one YAML file a stage. Read safely, checked whole, resolved and kept beside the weights."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from gama import plain_yaml
from gama.bitsandbytes_import import import_bitsandbytes
from gama.errors import MissingPackageError, RecipeError
from gama.text import shown
from gama.training.recipe_ranges import MOST, RANGES, out_of_range
from gama.training.recipe_values import Unfit, fit

Objective = Literal["text", "tagging", "naming", "answer"]
Save = Literal["merged", "adapter"]
Quant = Literal["none", "8bit", "4bit"]
Part = Literal["encoder", "aggregator", "qformer", "projectors", "prefix_positions", "decoder", "language_model"]


@dataclass(frozen=True)
class Data:
    """What a stage reads.

    Attributes:
        manifests: files of rows; empty for a stage that reads text alone.
        scenes: symbolic scenes an epoch (text pre-training).
        folds: folds of real recordings to train on; None for all.
        tasks: kinds of question drawn from a scene's truth; None for all.
        questions: questions a clip and step.
        packing: whether the questions of a clip share one row; otherwise every row of a manifest stands alone.
        augmentation: share of clips that are equalised and masked.
        keep_frozen: whether what encoder and Q-Former give for a clip is computed once and kept, where they do not
            learn (objective answer).
        cutoff: tokens of question and answer together, the one before them (``<s>``) counted, to which the answer is
            cut; a longer question stays whole, with one token of its answer.
        validation: a manifest of rows that are kept out of training and tell how well it goes; or a share of the clips.
        samples: how many of its questions are answered at every evaluation.
    """

    manifests: tuple[str, ...] = ()
    scenes: int = 0
    folds: tuple[int, ...] | None = None
    tasks: tuple[str, ...] | None = None
    questions: int = 8
    packing: bool = True
    augmentation: float = 0.0
    keep_frozen: bool = False
    cutoff: int = 108
    validation: float | str | None = None
    samples: int = 3


@dataclass(frozen=True)
class Loss:
    """How answers count.

    Attributes:
        train_on_inputs: whether questions are targets too.
        key_weight: weight of the words that decide whether an answer is right.
        naming: weight of the loss that names each soft token's word, beside the answers'.
        hearing: weight of the loss by which each patch says what sounds in it, beside the naming (objective naming).
    """

    train_on_inputs: bool = False
    key_weight: float = 1.0
    naming: float = 0.0
    hearing: float = 0.0


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
        otherwise: name of a packaged model that stands in for parents which are not there yet.
        model: arguments of GamaConfig for a start from nothing, or the name of a YAML file that holds them.
        trainable: the parts that learn.
        lora: adapters for the language model.
        save: ``merged`` writes a whole model, LoRA added to its weights; ``adapter`` writes audio modules and LoRA
            apart from the language model, and carries the LoRA of the stage before on.
        quant: how the frozen language model is held: ``4bit`` or ``8bit`` by bitsandbytes, or ``none``.
        data, loss: see there.
        training: arguments of transformers' TrainingArguments, which stand at the top level of the file.
    """

    name: str
    objective: Objective
    starts_from: Mapping[str, str] = field(default_factory=dict)
    otherwise: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    trainable: tuple[Part, ...] = ()
    lora: Lora | None = None
    save: Save = "merged"
    quant: Quant = "none"
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    training: Mapping[str, Any] = field(default_factory=dict)

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values, as it is kept beside the weights."""
        plain = _plain(dataclasses.asdict(self))
        return {k: v for k, v in plain.items() if k != "training"} | plain["training"]


_SECTIONS: dict[str, type] = {"data": Data, "loss": Loss, "lora": Lora}
_LONGEST_NAME = 255  # bytes, on every file system in use
_PARTS = ("audio_tower", "language_model")
_SHARE = "a manifest, or a share of the clips: more than 0 and less than 1"
_PACKED = "weights in 4 or 8 bits cannot learn: let adapters learn (lora), or take quant out"
_APART = "LoRA cannot be added to weights in 4 or 8 bits: give save: adapter"
_NOT_KEPT = "it needs objective answer, no augmentation and a frozen encoder; else give data.keep_frozen=false"
_PLAIN = "recipes are plain YAML without tags"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a stage's file, the names and types of TrainingArguments included (imports transformers).

    Args:
        path: the YAML file.
        overrides: ``key=value`` or ``section.key=value``, values as YAML.

    Raises:
        RecipeError: for YAML that is not plain, unknown keys (the nearest is named) or wrong values.
    """
    return check_training(read_recipe(path, overrides))


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """As :func:`load_recipe`, but ``training`` is taken as it stands: needs no torch."""
    raw = read_yaml(path)
    if overrides and isinstance(raw.get("model"), str):
        raw["model"] = _beside(path, raw["model"])
    for override in overrides:
        _override(raw, override)
    return _build(raw, path)


def check_training(recipe: Recipe) -> Recipe:
    """The recipe with its training arguments checked against transformers' (imports transformers).

    Raises:
        RecipeError: for a name that TrainingArguments has not, or a value of another type.
    """
    kinds = training_kinds()
    known = {f.name for f in dataclasses.fields(Recipe)} - {"training"}
    values = {}
    for key, value in recipe.training.items():
        if key not in kinds:
            raise RecipeError(f"{recipe.name}: unknown key {key!r}{_nearest(key, [*kinds, *known])}")
        if value is False and key.endswith("_strategy"):
            value = "no"  # which YAML 1.1 reads as false
        values[key] = fitted(value, kinds[key], f"{recipe.name}: {key}")
    return dataclasses.replace(recipe, training=values)


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file without tags.

    Raises:
        RecipeError: naming the file and what is wrong with it.
    """
    try:
        raw = plain_yaml.read(path)
    except plain_yaml.PlainYamlError as error:
        raise RecipeError(f"{path}: {error}", _PLAIN) from None
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise RecipeError(f"{path}: expected keys and values, found {type(raw).__name__}")
    return raw


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not all((*sections, name)):
        raise RecipeError(f"--set {text!r} is not key=value", "for example: --set max_steps=100")
    target = raw
    for section in sections:
        if target.get(section) is None:
            target[section] = {}
        if not isinstance(target[section], dict):
            raise RecipeError(f"--set {key}: {section!r} is no section")
        target = target[section]
    try:
        target[name] = plain_yaml.parse(value)
    except plain_yaml.PlainYamlError:
        raise RecipeError(f"--set {key}: {shown(value)} is not a plain YAML value") from None


def training_kinds() -> dict[str, Any]:
    """The TrainingArguments that a recipe may set, with their types."""
    with suppress(MissingPackageError):
        import_bitsandbytes()  # before transformers imports it
    from transformers import TrainingArguments

    return {f.name: f.type for f in dataclasses.fields(TrainingArguments) if f.init and f.name != "output_dir"}


def _build(raw: dict[str, Any], path: Path) -> Recipe:
    if isinstance(raw.get("model"), str):
        raw["model"] = _beside(path, raw["model"])
    known = {f.name for f in dataclasses.fields(Recipe)} - {"training"}
    training = {k: v for k, v in raw.items() if k not in known}
    for key in training:
        # only what cannot be a training argument: those are known to transformers alone
        if difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            raise RecipeError(f"{path.name}: unknown key {key!r}{_nearest(key, known)}")
    values: dict[str, Any] = {"name": path.stem, **{k: v for k, v in raw.items() if k in known and v is not None}}
    for section, kind in _SECTIONS.items():
        if section in values:
            values[section] = _section(kind, values[section], section, path)
    values["starts_from"] = parent_names(raw, path)
    if (objective := values.get("objective")) not in get_args(Objective):
        expected = ", ".join(get_args(Objective))
        raise RecipeError(f"{path.name}: objective is {shown(objective)}, expected one of {expected}")
    for name, kind in {"name": str, "otherwise": str, "model": dict[str, Any], "trainable": tuple[str, ...]}.items():
        if name in values:
            values[name] = fitted(values[name], kind, f"{path.name}: {name}")
    if values.get("save", "merged") not in get_args(Save):
        raise RecipeError(f"{path.name}: save is {shown(values['save'])}, expected one of {', '.join(get_args(Save))}")
    if values.get("quant", "none") not in get_args(Quant):
        given, known_kinds = values["quant"], ", ".join(get_args(Quant))
        raise RecipeError(f"{path.name}: quant is {shown(given)}, expected one of {known_kinds}")
    for part in values.get("trainable", ()):
        if part not in get_args(Part):
            raise RecipeError(f"{path.name}: trainable: no part {part!r}{_nearest(part, get_args(Part))}")
    recipe = Recipe(**values, training=_numbers(training, path))
    _check(recipe, path)
    return recipe


def _numbers(training: dict[str, Any], path: Path) -> dict[str, Any]:
    """The training arguments with their numbers checked; the others are for transformers to know."""
    numbers = {k: fitted(v, RANGES[k].kind, f"{path.name}: {k}") for k, v in training.items() if k in RANGES}
    for key, value, expected in out_of_range(numbers):
        raise RecipeError(f"{path.name}: {key} is {shown(value)}, expected {expected}")
    return training | numbers


def parent_names(raw: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The stage that each of ``audio_tower`` and ``language_model`` comes from; empty for a start from nothing."""
    given = raw.get("starts_from") or {}
    names = dict.fromkeys(_PARTS, given) if isinstance(given, str) else given
    if names and (not isinstance(names, dict) or set(names) != set(_PARTS)):
        raise RecipeError(
            f"{path.name}: starts_from is {shown(given)}, expected the name of a stage",
            "or one stage for each part: {audio_tower: encoder, language_model: language}",
        )
    return {part: fitted(name, str, f"{path.name}: starts_from.{part}") for part, name in names.items()}


def _check(recipe: Recipe, path: Path) -> None:
    """Values that have the right type and still cannot be."""
    from gama.data.scenes.questions import TASKS

    data, loss, lora = recipe.data, recipe.loss, recipe.lora or Lora()
    least = int(recipe.objective == "text")
    bounds = {
        "data.scenes": (data.scenes, least <= data.scenes <= MOST, "1 or more for objective text"),
        "data.questions": (data.questions, 1 <= data.questions <= 4096, "1 or more, up to 4096"),
        "data.cutoff": (data.cutoff, 2 <= data.cutoff <= MOST, "2 or more"),
        "data.samples": (data.samples, 0 <= data.samples <= MOST, "0 or more"),
        "data.validation": (data.validation, not isinstance(data.validation, float) or 0 < data.validation < 1, _SHARE),
        "data.augmentation": (data.augmentation, 0 <= data.augmentation <= 1, "0 to 1"),
        "loss.key_weight": (loss.key_weight, loss.key_weight > 0, "more than 0"),
        "loss.naming": (loss.naming, loss.naming >= 0, "0 or more"),
        "loss.hearing": (loss.hearing, loss.hearing >= 0, "0 or more"),
        "lora.r": (lora.r, 1 <= lora.r <= 65_536, "1 or more, up to 65536"),
        "lora.alpha": (lora.alpha, 1 <= lora.alpha <= MOST, "1 or more"),
        "lora.dropout": (lora.dropout, 0 <= lora.dropout < 1, "0 to less than 1"),
    }
    for key, (value, fits, expected) in bounds.items():
        if not fits:
            raise RecipeError(f"{path.name}: {key} is {shown(value)}, expected {expected}")
    for name in (*data.manifests, *([data.validation] if isinstance(data.validation, str) else [])):
        if not name or "\0" in name or any(len(part.encode()) > _LONGEST_NAME for part in Path(name).parts):
            raise RecipeError(f"{path.name}: data: {shown(name)} is no name of a manifest")
    if data.validation is not None and recipe.objective == "text":
        raise RecipeError(f"{path.name}: data.validation is {data.validation}, and objective text has no clips to keep")
    if recipe.quant != "none" and {"decoder", "language_model"} & set(recipe.trainable):
        raise RecipeError(f"{path.name}: quant is {recipe.quant}, and trainable names the language model", _PACKED)
    if recipe.quant != "none" and recipe.save != "adapter":
        raise RecipeError(f"{path.name}: quant is {recipe.quant} and save is {recipe.save}", _APART)
    if recipe.save == "adapter" and {"decoder", "language_model"} & set(recipe.trainable):
        raise RecipeError(f"{path.name}: save is adapter, and trainable names the language model", "give save: merged")
    if data.keep_frozen and (recipe.objective != "answer" or data.augmentation > 0 or "encoder" in recipe.trainable):
        raise RecipeError(f"{path.name}: data.keep_frozen is true, and what the encoder gives is not fixed", _NOT_KEPT)
    for task in data.tasks or ():
        if task not in TASKS:
            raise RecipeError(f"{path.name}: data.tasks: no task {task!r}{_nearest(task, TASKS)}")


def _beside(path: Path, name: str) -> Any:
    file = path.parent / name
    if len(name.encode(errors="replace")) > _LONGEST_NAME or not file.is_file():
        raise RecipeError(f"{path.name}: model names {shown(name)}, which does not lie beside it")
    return read_yaml(file)


def _section(kind: type, raw: Any, name: str, path: Path) -> Any:
    kinds = get_type_hints(kind)
    if not isinstance(raw, dict):
        raise RecipeError(f"{path.name}: {name!r} is {shown(raw)}, expected keys and values")
    for key in raw:
        if key not in kinds:
            raise RecipeError(f"{path.name}: unknown key {name}.{key}{_nearest(str(key), kinds)}")
    return kind(**{k: fitted(v, kinds[k], f"{path.name}: {name}.{k}") for k, v in raw.items()})


def fitted(value: Any, kind: Any, what: str) -> Any:
    """A value of a YAML file in the type that is wanted.

    Raises:
        RecipeError: naming ``what`` it is, where it does not fit.
    """
    try:
        return fit(value, kind)
    except Unfit as error:
        raise RecipeError(f"{what} is {shown(value)}, expected {error}") from None


def _nearest(key: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(names)[:12])} …"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
