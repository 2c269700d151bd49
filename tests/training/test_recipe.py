"""Recipes: plain YAML, every key and value checked, overrides, and the resolved form."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any

import pytest
import yaml
from training import tiny

from gama.errors import RecipeError
from gama.training.recipe import Data, Recipe, load_recipe, read_recipe, training_kinds
from gama.training.recipe_paths import recipes_root
from gama.training.recipe_ranges import RANGES, out_of_range
from gama.training.recipe_values import Unfit, fit


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tiny.write_stage(tmp_path / "stage9.yaml")


def test_a_recipe_is_read_whole(stage: Path) -> None:
    recipe = load_recipe(stage)
    assert recipe.name == "stage9"
    assert recipe.starts_from == {"audio_tower": "base", "language_model": "base"}
    assert recipe.trainable == ("aggregator", "qformer", "projectors")
    assert recipe.lora is not None and recipe.lora.target_modules == ("q_proj", "v_proj")
    assert recipe.data == Data(questions=2, augmentation=0.5)
    assert recipe.training["max_steps"] == 2


def test_overrides(stage: Path) -> None:
    given = ["max_steps=7", "data.folds=[1, 2]", "lora=null", "loss.naming=1", "learning_rate=1e-4", "name=mine"]
    recipe = load_recipe(stage, given)
    assert (recipe.training["max_steps"], recipe.data.folds, recipe.lora) == (7, (1, 2), None)
    assert (recipe.loss.naming, recipe.name) == (1.0, "mine")
    # YAML 1.1 reads 1e-4 as text
    assert recipe.training["learning_rate"] == 1e-4
    assert load_recipe(stage, ["data.folds=null", "data=null"]).data == Data()
    # and no as false
    assert load_recipe(stage, ["save_strategy=no"]).training["save_strategy"] == "no"


def test_the_model_may_lie_in_a_file_and_still_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "sizes.yaml").write_text(yaml.safe_dump(tiny.MODEL))
    stage = tiny.write_stage(tmp_path / "s.yaml", starts_from=None, model="sizes.yaml")
    assert read_recipe(stage).model["text_config"]["hidden_size"] == 32
    assert read_recipe(stage, ["model.text_config.hidden_size=64"]).model["text_config"]["hidden_size"] == 64
    with pytest.raises(RecipeError, match="model names 'size.yaml'"):
        read_recipe(stage, ["model=size.yaml"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_step=3", "unknown key 'max_step'; did you mean 'max_steps'"),
        ("objectiv=answer", "unknown key 'objectiv'; did you mean 'objective'"),
        ("trainabel=[]", "did you mean 'trainable'"),
        ("output_dir=x", "unknown key 'output_dir'"),
        ("data.question=3", "unknown key data.question; did you mean 'questions'"),
        ("loss.key_wight=3", "unknown key loss.key_wight; did you mean 'key_weight'"),
        ("data.questions=many", "data.questions is 'many', expected a whole number"),
        ("data.questions=true", "data.questions is True, expected a whole number"),
        ("data.questions=0", "data.questions is 0, expected 1 or more"),
        ("data.augmentation=half", "data.augmentation is 'half', expected a number"),
        ("data.augmentation=1.5", "data.augmentation is 1.5, expected 0 to 1"),
        ("data.folds=3", "data.folds is 3, expected a list"),
        ("data.folds=[a]", r"data.folds is \['a'\], expected a whole number or null"),
        ("data.tasks=[wat]", "data.tasks: no task 'wat'; did you mean 'what'"),
        ("data.manifests=one.json", "data.manifests is 'one.json', expected a list"),
        (f"data.manifests=[{'a' * 300}]", "data: 'aaaa.*' is no name of a manifest"),
        ("data.manifests=['']", "data: '' is no name of a manifest"),
        (f"model='{'9' * 300}'", "model names '999.*', which does not lie beside it"),
        ("data=3", "'data' is 3, expected keys and values"),
        ("loss.naming=.nan", "loss.naming is nan, expected a number"),
        ("loss.key_weight=0", "loss.key_weight is 0.0, expected more than 0"),
        ("loss.train_on_inputs=1", "loss.train_on_inputs is 1, expected true or false"),
        ("lora.r=0", "lora.r is 0, expected 1 or more"),
        ("lora.dropout=1", "lora.dropout is 1.0"),
        ("lora.target_modules=q_proj", "lora.target_modules is 'q_proj', expected a list of texts"),
        ("objective=guess", "objective is 'guess', expected one of text, tagging, naming, answer"),
        ("trainable=[encodr]", "trainable: no part 'encodr'; did you mean 'encoder'"),
        ("trainable=encoder", "trainable is 'encoder', expected a list"),
        ("starts_from={language_model: a}", "expected the name of a stage"),
        ("starts_from=[a]", "expected the name of a stage"),
        ("model=[a]", "model is .*, expected keys and values"),
        ("data.questions=5000", "data.questions is 5000, expected 1 or more, up to 4096"),
        ("data.cutoff=1", "data.cutoff is 1, expected 2 or more"),
        ("data.scenes=3000000000", "data.scenes is 3000000000, expected 1 or more"),
        ("data.scenes=99999999999999999999", "is not a plain YAML value"),
        ("lora.r=10000000", "lora.r is 10000000, expected 1 or more, up to 65536"),
        ("per_device_train_batch_size=0", "per_device_train_batch_size is 0, expected 1 or more"),
        ("per_device_train_batch_size=-2", "per_device_train_batch_size is -2, expected 1 or more"),
        ("per_device_eval_batch_size=0", "per_device_eval_batch_size is 0, expected 1 or more"),
        ("gradient_accumulation_steps=0", "gradient_accumulation_steps is 0, expected 1 or more"),
        ("max_steps=0", "max_steps is 0, expected 1 or more, or -1 for num_train_epochs"),
        ("max_steps=-2", "max_steps is -2, expected 1 or more"),
        ("max_steps=9999999999", "max_steps is 9999999999, expected 1 or more"),
        ("num_train_epochs=0", "num_train_epochs is 0.0, expected more than 0 and at most 1e.06"),
        ("learning_rate=-1e-3", "learning_rate is -0.001, expected 0 or more"),
        ("warmup_steps=-1", "warmup_steps is -1.0, expected 0 or more"),
        ("weight_decay=-1", "weight_decay is -1.0, expected 0 or more"),
        ("adam_beta1=1", "adam_beta1 is 1.0, expected 0 or more and less than 1"),
        ("adam_epsilon=0", "adam_epsilon is 0.0, expected more than 0"),
        ("max_grad_norm=-1", "max_grad_norm is -1.0, expected 0 or more"),
        ("logging_steps=0", "logging_steps is 0.0, expected more than 0"),
        ("save_steps=0", "save_steps is 0.0, expected more than 0"),
        ("eval_steps=-1", "eval_steps is -1.0, expected more than 0"),
        ("save_total_limit=0", "save_total_limit is 0, expected 1 or more"),
        ("seed=-1", "seed is -1, expected 0 or more"),
        ("seed=99999999999", "seed is 99999999999, expected 0 or more"),
        ("dataloader_num_workers=-1", "dataloader_num_workers is -1, expected 0 or more and at most 1024"),
        ("label_smoothing_factor=1", "label_smoothing_factor is 1.0, expected 0 or more and less than 1"),
        ("max_steps=soon", "max_steps is 'soon', expected a whole number"),
        ("learning_rate=fast", "learning_rate is 'fast', expected a number"),
        ("bf16=maybe", "bf16 is 'maybe', expected true or false"),
        ("max_steps", "'max_steps' is not key=value"),
        ("=3", "is not key=value"),
        ("data..folds=3", "is not key=value"),
        ("max_steps.x=3", "'max_steps' is no section"),
        ("max_steps=[", "is not a plain YAML value"),
        ("name=!!python/object/apply:os.getcwd []", "is not a plain YAML value"),
        ("name=!!str 3", "is not a plain YAML value"),
    ],
)
def test_wrong_overrides(stage: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(stage, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: !!python/object/apply:os.getcwd []", r"carries the tag .*\(recipes are plain YAML without tags"),
        ("a: 1\nname: !mine x", "line 2 carries the tag"),
        ("a: [", "stage9.yaml: while parsing"),
        ("- a", "expected keys and values, found list"),
        ("", "expected keys and values, found NoneType"),
        ("1: 2", "expected keys and values"),
        ("objective: text\ndata: {scenes: 0}", "data.scenes is 0, expected 1 or more for objective text"),
        ("name: x", "objective is None"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "stage9.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)
    path.write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match="can't decode"):
        load_recipe(path)


def test_the_resolved_recipe_is_a_recipe(stage: Path, tmp_path: Path) -> None:
    recipe = load_recipe(stage, ["max_steps=7", "data.folds=[1]", "loss.naming=0.5"])
    again = tmp_path / "recipe.yaml"
    again.write_text(yaml.safe_dump(recipe.resolved(), sort_keys=False))
    assert load_recipe(again) == recipe


def test_no_training_argument_is_taken_for_a_misspelt_key() -> None:
    ours = set(Recipe.__dataclass_fields__) - {"training"}
    assert [k for k in training_kinds() if difflib.get_close_matches(k, ours, n=1, cutoff=0.8)] == []


@pytest.mark.parametrize("path", sorted(recipes_root().rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_packaged_recipes_are_valid(path: Path) -> None:
    if path.name not in ("model.yaml", "data.yaml"):
        recipe = load_recipe(path)
        assert recipe.trainable or recipe.lora
        assert recipe.name.endswith(path.stem)


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (3, float, 3.0),
        ("1e-3", float | None, 0.001),
        (None, float | None, None),
        ([1, 2], tuple[int, ...] | None, (1, 2)),
        ("steps", str | dict[str, Any], "steps"),
        (object, Any, object),
    ],
)
def test_values_that_fit(value: Any, kind: Any, result: Any) -> None:
    got = fit(value, kind)
    assert got == result and type(got) is type(result)


@pytest.mark.parametrize(("value", "kind"), [(1.5, int), ("x", float), (True, float), (float("inf"), float), (1, str)])
def test_values_that_do_not_fit(value: Any, kind: Any) -> None:
    with pytest.raises(Unfit):
        fit(value, kind)


def test_every_number_of_the_training_arguments_has_its_range() -> None:
    from transformers import TrainingArguments

    kinds = {name: str(kind) for name, kind in training_kinds().items()}
    numbers = {n for n, kind in kinds.items() if kind.startswith(("<class 'int", "<class 'float", "int |", "float |"))}
    assert numbers - set(RANGES) == set()
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments) if f.name in RANGES}
    assert [key for key, _, _ in out_of_range(defaults)] == []


def test_ranges_are_checked_without_transformers(stage: Path) -> None:
    with pytest.raises(RecipeError, match="max_steps is 0, expected 1 or more, or -1"):
        read_recipe(stage, ["max_steps=0"])
    assert read_recipe(stage, ["max_steps=-1", "learning_rate=1e-3"]).training["learning_rate"] == 0.001
