"""The ``model`` of a recipe: sizes that make no model are errors of the recipe, before anything is built."""

from __future__ import annotations

from typing import Any

import pytest
from training import tiny

from gama.errors import RecipeError
from gama.training import stages
from gama.training.footprint import skeleton
from gama.training.model_config import model_config
from gama.training.recipe import Recipe


def changed(part: str, **values: Any) -> dict[str, Any]:
    return tiny.MODEL | {part: tiny.MODEL[part] | values}


def test_sizes_of_a_model() -> None:
    assert model_config(tiny.MODEL).text_config.vocab_size == 900
    assert model_config(tiny.MODEL, audio_token_id=7).audio_token_id == 7


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (changed("text_config", num_hidden_layers=10**6), "model.text_config.num_hidden_layers is 1000000, expected"),
        (changed("encoder_config", hidden_size=2**30), "model.encoder_config.hidden_size is 1073741824, expected at"),
        (changed("encoder_config", stem_channels=[10**9]), "model.encoder_config.stem_channels is 1000000000"),
        (changed("text_config", vocab_size="many"), "model: "),
        (changed("encoder_config", colour="red", taps=3), "model: "),
        (tiny.MODEL | {"text_config": 3}, "model: "),
        (tiny.MODEL | {"aggregator": "mine"}, "model: "),
    ],
)
def test_what_is_no_model(model: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        config = model_config(model)
        skeleton(config, Recipe("x", "answer", model=model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"num_attention_heads": 0}, {"hidden_size": -2}, {"vocab_size": None}])
def test_sizes_that_do_not_go_together(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="model: "):
        stages.from_nothing(changed("text_config", **values), 3)
