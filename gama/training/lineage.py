"""What a stage was made of: recipe, parents, data, code, and which parameters learned."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import gama as package
from gama import plain_yaml
from gama.checkpoints.apart import weights_sha256
from gama.errors import RecipeError
from gama.training.recipe import Recipe

LINEAGE = "lineage.json"
RECIPE = "recipe.yaml"

# what may change in mid run: how long, what is said, kept and looked at, how rows are read, what memory is spent
_FREE = (
    *("max_steps", "num_train_epochs", "report_to", "run_name", "project", "disable_tqdm"),
    *("per_device_train_batch_size", "gradient_accumulation_steps"),  # they go with how many processes there are
)
_FREE_KINDS = (
    *("save_", "logging_", "log_", "eval_", "dataloader_", "per_device_eval_", "ddp_"),
    *("gradient_checkpointing", "activation_checkpointing"),
)
# compared by the hashes of require_same_origin, wherever they lie and whatever they are called
_BY_HASH = ("name", "starts_from", "otherwise", "data.manifests")


@dataclass(frozen=True)
class Lineage:
    """One stage's entry in a model's lineage; all hashes are SHA-256 in hex.

    Attributes:
        stage: name of the recipe.
        recipe: of the resolved recipe.
        parents: of the weights that each part came from.
        data: of the manifests' content; None where scenes are drawn from a seed alone.
        code: of this package's source.
        parameters: trainable and frozen parameters by part of the model.
    """

    stage: str
    recipe: str
    parents: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    code: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def entry(self, steps: int) -> dict[str, Any]:
        """As it stands in ``config.json`` and ``lineage.json``, after so many steps."""
        return {
            "stage": self.stage,
            "recipe_sha256": self.recipe,
            "parents": dict(self.parents),
            "data_sha256": self.data,
            "steps": steps,
            "gama": package.__version__,
            "code_sha256": self.code,
            "parameters": dict(self.parameters),
        }


def trace(recipe: Recipe, parents: Mapping[str, Path], ledger: Mapping[str, Any]) -> Lineage:
    """The lineage of a stage that is about to begin.

    Args:
        recipe: resolved, with the paths of its manifests.
        parents: folder of the model that each part comes from.
        ledger: see :func:`gama.training.objectives.describe`.
    """
    hashes = {folder: weights_sha256(folder) for folder in dict.fromkeys(parents.values())}
    # where the manifests lie changes nothing about what is learned
    resolved = recipe.resolved() | {"data": recipe.resolved()["data"] | {"manifests": len(recipe.data.manifests)}}
    return Lineage(
        stage=recipe.name,
        recipe=hashlib.sha256(json.dumps(resolved, sort_keys=True, default=str).encode()).hexdigest(),
        parents={part: hashes[folder] for part, folder in parents.items()},
        data=files_sha256(map(Path, recipe.data.manifests)) if recipe.data.manifests else None,
        code=files_sha256(sorted(Path(package.__file__).parent.rglob("*.py"))),
        parameters=ledger,
    )


def files_sha256(paths: Iterable[Path]) -> str:
    """The hash of some files' contents in order; a file named twice counts twice and is read once."""
    digest, known = hashlib.sha256(), dict[Path, bytes]()
    for path in paths:
        if path not in known:
            with path.open("rb") as opened:
                known[path] = hashlib.file_digest(opened, "sha256").digest()
        digest.update(known[path])
    return digest.hexdigest()


def require_same_origin(checkpoint: Path, lineage: Lineage) -> None:
    """Refuse to go on where the parent or the rows are no longer those that the run began with.

    Raises:
        RecipeError: naming what has changed.
    """
    file = checkpoint / LINEAGE
    if not file.is_file():
        return
    try:
        before, now = json.loads(file.read_text(encoding="utf-8")), lineage.entry(0)
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict):
        raise RecipeError(f"{file}: is not JSON of ours", "put the file back that the run wrote")
    for key, what in {"parents": "the model it started from", "data_sha256": "the content of its manifests"}.items():
        if before.get(key) != now[key]:
            raise RecipeError(
                f"{checkpoint.parent}: {what} has changed since {checkpoint.name} was written",
                "put it back, or train anew into another --output",
            )


def require_same_recipe(checkpoint: Path, recipe: Recipe) -> None:
    """Refuse to go on with settings that a checkpoint overrules, or that would tell of a run which never was.

    Limits and intervals, what is reported, how rows are read and how many a process takes at once may differ.

    Args:
        checkpoint: with the recipe that it was written with; one without is not compared.
        recipe: the stage as it is asked for now.

    Raises:
        RecipeError: naming the keys that differ.
    """
    file = checkpoint / RECIPE
    if not file.is_file():
        return
    try:
        written = plain_yaml.read(file)
    except plain_yaml.PlainYamlError as error:
        raise RecipeError(f"{file}: {error}", "put the checkpoint's recipe back") from None
    if not isinstance(written, dict):
        raise RecipeError(f"{file}: expected keys and values", "put the checkpoint's recipe back")
    before = _decisive(written)
    now = _decisive(yaml.safe_load(recipe_text(recipe)))
    defaults = _defaults()
    keys = [key for key in {**before, **now} if before.get(key, defaults.get(key)) != now.get(key, defaults.get(key))]
    if keys:
        raise RecipeError(
            f"{checkpoint.parent}: {', '.join(keys)} changed since {checkpoint.name} was written, "
            "and a run goes on with the recipe that it began with",
            "put the recipe back, or train anew into another --output",
        )


def recipe_text(recipe: Recipe) -> str:
    """A resolved recipe as YAML."""
    return yaml.safe_dump(recipe.resolved(), sort_keys=False)


def _decisive(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved recipe decides about the weights, the keys of its sections as ``section.key``."""
    flat: dict[str, Any] = {}
    for key, value in resolved.items():
        section = {f"{key}.{name}": v for name, v in value.items()} if key in ("data", "loss") else {key: value}
        flat |= {name: v for name, v in section.items() if not _is_free(name)}
    if isinstance(flat.get("data.validation"), str):
        del flat["data.validation"]  # rows of its own; a share is taken from those that are learned
    return flat


def _is_free(key: str) -> bool:
    return key in (*_FREE, *_BY_HASH, "data.samples") or key.startswith(_FREE_KINDS)


def _defaults() -> dict[str, Any]:
    """What a key that is not given stands for."""
    from transformers import TrainingArguments

    own = _decisive(yaml.safe_load(recipe_text(Recipe("", "text"))))
    return {f.name: f.default for f in dataclasses.fields(TrainingArguments)} | own
