"""The recipes of the full-size model carry the numbers of the released scripts, and of the paper, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from gama.data.mixture import mixture_file, parts_of
from gama.errors import RecipeError
from gama.training.curriculum import Request, plan
from gama.training.recipe import Lora, Recipe, load_recipe
from gama.training.recipe_paths import recipe_folder

TOWER = {"encoder", "aggregator", "qformer", "projectors"}

# train_script/stage1.sh … stage5.sh: micro-batch, batch, learning rate, epochs, trainable_params, saved every
RELEASED = [
    (4, 256, 1e-3, 2, {"aggregator", "projectors"}, 500),
    (1, 256, 1e-4, 2, TOWER, 2300),
    (2, 256, 1e-4, 1, TOWER, 2000),
    (2, 256, 1e-4, 2, TOWER, 100),
    (2, 164, 1e-4, 1, TOWER, 100),
]
# the paper, section 3.3, and what it leaves to LTU's four stages: micro-batch, batch, learning rate, epochs, trainable
PAPER = [
    (4, 256, 1e-3, 2, {"projectors"}),
    (2, 256, 1e-4, 2, TOWER),
    (2, 256, 1e-4, 1, TOWER),
    (2, 256, 1e-4, 1, TOWER),
    (2, 256, 1e-4, 1, set()),
]


def numbers(recipe: Recipe) -> tuple[object, ...]:
    given = recipe.training
    micro = given["per_device_train_batch_size"]
    batch = micro * given["gradient_accumulation_steps"]
    return micro, batch, given["learning_rate"], given["num_train_epochs"], set(recipe.trainable)


def check_common(recipe: Recipe, stage: int) -> None:
    """What all stages share, in the scripts and in the paper."""
    lora = Lora(r=8, alpha=16, dropout=0.05, target_modules=("q_proj", "v_proj"))
    assert recipe.lora == (None if stage == 1 else lora)  # stage 1: --lora_target_modules ['dummy']
    assert recipe.data.cutoff == 108
    assert (recipe.data.packing, recipe.data.questions) == (False, 1)
    assert recipe.loss.train_on_inputs
    assert recipe.save == "adapter"
    given = recipe.training
    assert (given["warmup_steps"], given["lr_scheduler_type"], given["weight_decay"]) == (100, "linear", 0.0)
    assert (given["bf16"], given["train_sampling_strategy"]) == (True, "group_by_length")
    assert recipe.starts_from["language_model"] == ("base" if stage == 1 else f"stage{stage - 1}")


@pytest.mark.parametrize("stage", range(1, 6))
def test_the_released_scripts(stage: int) -> None:
    recipe = load_recipe(recipe_folder("gama") / f"stage{stage}.yaml")
    assert numbers(recipe) == RELEASED[stage - 1][:5]
    assert recipe.training["save_steps"] == RELEASED[stage - 1][5]
    check_common(recipe, stage)


@pytest.mark.parametrize("stage", range(1, 6))
def test_the_paper(stage: int) -> None:
    recipe = load_recipe(recipe_folder("paper") / f"stage{stage}.yaml")
    assert numbers(recipe) == PAPER[stage - 1]
    assert recipe.data.manifests == (f"paper/stage{stage}.jsonl",)
    check_common(recipe, stage)
    # every number says where it is from
    lines = (recipe_folder("paper") / f"stage{stage}.yaml").read_text().splitlines()
    bare = [line for line in lines if any(c.isdigit() for c in line.partition("#")[0]) and "#" not in line]
    assert [line.partition(":")[0] for line in bare if "stage" not in line.partition(":")[2]] == [
        "  questions",
        "save_steps",
        "logging_steps",
    ]


def test_the_papers_data_is_a_mixture_and_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in range(1, 6):
        assert parts_of(mixture_file("paper"), f"stage{stage}", tmp_path)[1]
    with pytest.raises(RecipeError) as caught:
        plan(Request("paper", "3"))
    command = "gama prepare combine --mixture paper --stage 3 --folder DIR --out data/paper/stage3.jsonl"
    assert command in caught.value.message
    assert "gama train --recipe paper --stage 2" in caught.value.message
