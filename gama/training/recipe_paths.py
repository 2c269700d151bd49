"""Where the packaged recipes lie and what they are called. No torch, no YAML.

A recipe is a folder of stages: ``recipes/mini/stage1.yaml`` … is the recipe ``mini``; the stages that lie directly in
``recipes/`` are the recipe ``gama``, the full-size model.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from gama.errors import RecipeError

FULL_SIZE = "gama"
"""The recipe whose stages lie at the top of the recipes folder."""

_STAGE_FILE = re.compile(r"stage(\d+)\.yaml")


def recipes_root() -> Path:
    """The folder of all recipes: ``gama/recipes`` in an installed wheel, ``recipes`` in a source checkout.

    Raises:
        RecipeError: when this installation holds neither.
    """
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent
    if (package / "recipes").is_dir():
        return package / "recipes"
    # pyproject.toml tells our checkout from a site-packages that happens to hold a folder "recipes"
    if (checkout / "recipes").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "recipes"
    raise RecipeError("this installation of gama holds no recipes", "reinstall gama-audio")


def stage_files(folder: Path) -> list[Path]:
    """The files ``stageN.yaml`` directly in a folder, by their number."""
    numbered = [(int(match[1]), path) for path in folder.iterdir() if (match := _STAGE_FILE.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def recipe_files(folder: Path) -> list[Path]:
    """Every file of a recipe: its numbered stages, then pre-training stages and what they share."""
    numbered = stage_files(folder)
    return numbered + [path for path in sorted(folder.glob("*.yaml")) if path not in numbered]


def recipe_names() -> list[str]:
    """The names of the packaged recipes, the full-size one first."""
    root = recipes_root()
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and stage_files(path))
    return [FULL_SIZE, *folders] if stage_files(root) else folders


def recipe_folder(recipe: str | Path) -> Path:
    """The folder of a recipe given by its packaged name or by a path to a folder of stages.

    Raises:
        RecipeError: when it is neither; the message lists the names there are.
    """
    names = recipe_names()
    if str(recipe) in names:
        return recipes_root() if str(recipe) == FULL_SIZE else recipes_root() / str(recipe)
    path = Path(recipe)
    if path.is_dir():
        if stage_files(path):
            return path
        raise RecipeError(f"{str(path)!r} holds no recipe", "a recipe is a folder of stage1.yaml, stage2.yaml, …")
    near = difflib.get_close_matches(str(recipe), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "give one of these names or the path of a folder of stages"
    raise RecipeError(f"no recipe {str(recipe)!r}; there are: {', '.join(names) or 'none'}", hint)
