"""The packages that training arguments ask for beyond gama's own: trackers and DeepSpeed, looked up before a run."""

from __future__ import annotations

from importlib.util import find_spec

from gama.errors import MissingPackageError, RecipeError
from gama.training.recipe import Recipe

_TRACKERS = {
    "azure_ml": ("azureml", "azureml-sdk"),
    "clearml": ("clearml", "clearml"),
    "codecarbon": ("codecarbon", "codecarbon"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub", "dagshub"),
    "dvclive": ("dvclive", "dvclive"),
    "flyte": ("flytekit", "flytekit"),
    "mlflow": ("mlflow", "mlflow"),
    "neptune": ("neptune", "neptune"),
    "swanlab": ("swanlab", "swanlab"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
"""Module and package of what ``report_to`` names."""
_UNCHECKED = ("all", "none", "kubeflow")
_INSTEAD = {"tensorboard": "tensorboardX"}


def require_packages(recipe: Recipe) -> None:
    """Refuse a recipe whose trackers or DeepSpeed are not installed.

    Raises:
        MissingPackageError: with the command that installs it.
        RecipeError: for a tracker that nobody knows.
    """
    given = recipe.training.get("report_to") or []
    for name in [given] if isinstance(given, str) else given:
        if name in _UNCHECKED:
            continue
        if name not in _TRACKERS:
            known = ", ".join(("all", "none", *_TRACKERS))
            raise RecipeError(f"{recipe.name}: report_to is {name!r}, expected one of {known}")
        _require(recipe, f"report_to={name}", *_TRACKERS[name])
    if recipe.training.get("deepspeed"):
        _require(recipe, "deepspeed", "deepspeed", "deepspeed")


def _require(recipe: Recipe, setting: str, module: str, package: str) -> None:
    if not any(_is_installed(name) for name in (module, _INSTEAD.get(module, module))):
        message = f"{recipe.name}: {setting} needs the package {package}, which is not installed"
        raise MissingPackageError(message, f"pip install {package}")


def _is_installed(module: str) -> bool:
    return find_spec(module) is not None
