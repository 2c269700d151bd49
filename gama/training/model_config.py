"""The ``model`` of a recipe as a configuration, and errors of the recipe where it makes none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from gama.errors import GamaError, RecipeError
from gama.model.configuration import GamaConfig, with_current_names
from gama.text import shown

_LARGEST = 2**24  # of a size: more than any vocabulary has words
_MOST_LAYERS = 1024


def model_config(model: Mapping[str, Any], **more: Any) -> GamaConfig:
    """The configuration that a recipe's ``model`` describes.

    Args:
        model: arguments of GamaConfig.
        more: what goes before them.

    Raises:
        RecipeError: for a size that no model has, or arguments that GamaConfig does not take.
    """
    _check_sizes(model, "model")
    with recipe_errors():
        return GamaConfig(**{**with_current_names(dict(model)), **more})


@contextmanager
def recipe_errors() -> Iterator[None]:
    """Inside, what transformers and torch raise for sizes that do not go together is an error of the recipe."""
    try:
        yield
    except GamaError:
        raise
    except (
        *(TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError, AssertionError),
        StrictDataclassError,
    ) as error:
        text = " ".join(str(error).split())
        raise RecipeError(f"model: {type(error).__name__}: {text[:300]}", "its sizes make no model") from error


def _check_sizes(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_sizes(inner, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_sizes(inner, name)
    elif isinstance(value, int):
        most = _MOST_LAYERS if name.endswith("_layers") else _LARGEST
        if not -_LARGEST <= value <= most:
            raise RecipeError(f"{name} is {shown(value)}, expected at most {most}")
