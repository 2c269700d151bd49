"""What there is to plan: the stages of a request with the configurations of their models. No weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gama.checkpoints.apart import is_apart
from gama.checkpoints.bundled import model_folder
from gama.model.configuration import GamaConfig
from gama.model.processing import GamaProcessor
from gama.training.curriculum import DATA, Step
from gama.training.model_config import model_config
from gama.training.planning import Subject
from gama.training.recipe import Recipe, check_training, read_recipe
from gama.training.scene_sets import MANIFEST


def subject_of(step: Step) -> Subject:
    """A stage to plan; where its parent is not there yet, the model that the first of its parents starts from.

    Raises:
        RecipeError: for a wrong recipe or training argument.
    """
    recipe = check_training(step.recipe)
    folder = step.parents.get("language_model")
    if folder is None or not (folder / "config.json").is_file():
        folder = _stand_in(recipe, step.file)
    promised = {str(DATA / made.name / MANIFEST): made.count for made in step.makes}
    if folder is None:
        return Subject(recipe, model_config(_described(recipe, step.file)), None, promised)
    config = GamaConfig.from_pretrained(folder)
    return Subject(recipe, config, _processor(folder), promised, _mapped(step, folder, config))


def _mapped(step: Step, folder: Path, config: GamaConfig) -> frozenset[str]:
    """What is read from the parent's file without a copy: of its weights all that are float32 and stay as they are."""
    if folder != step.parents.get("language_model") or config.dtype != torch.float32 or step.recipe.quant != "none":
        return frozenset()
    copied = is_apart(folder) or step.parents.get("audio_tower") != folder
    return frozenset({"language_model"} if copied else {"language_model", "audio_tower"})


def _processor(folder: Path) -> Any | None:
    if not (folder / "tokenizer.json").is_file():
        return None
    return GamaProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _ancestors(recipe: Recipe, file: Path) -> list[Recipe]:
    """The stage and those its language model comes from, as far as they are stages of the same folder."""
    line, current = [recipe], recipe
    while (name := current.starts_from.get("language_model")) and (file.parent / f"{name}.yaml").is_file():
        current = read_recipe(file.parent / f"{name}.yaml")
        if current.name in {r.name for r in line}:
            break
        line.append(current)
    return line


def _stand_in(recipe: Recipe, file: Path) -> Path | None:
    """The packaged model that a stage or one of its parents names, whose sizes and tokenizer are theirs."""
    return next((model_folder(r.otherwise) for r in _ancestors(recipe, file) if r.otherwise), None)


def _described(recipe: Recipe, file: Path) -> dict[str, Any]:
    """The sizes that a stage or one of its parents names; none are those of the released model."""
    return next((dict(r.model) for r in _ancestors(recipe, file) if "text_config" in r.model), {})
