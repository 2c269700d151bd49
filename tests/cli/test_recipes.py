"""``gama recipes`` and the lookup of recipes by name and by path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gama.errors import RecipeError
from gama.training import recipe_paths
from gama_cli.main import cli


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recipes: ``gama`` with ten stages, ``mini`` with two."""
    folder = tmp_path / "recipes"
    (folder / "mini").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "README.md").write_text("# Recipes\n")
    for number in range(1, 11):
        (folder / f"stage{number}.yaml").write_text(f"# Full size, stage {number}.\nstage: {number}\n")
    for number in (1, 2):
        (folder / "mini" / f"stage{number}.yaml").write_text(f"#\n# Mini, stage {number}: grün.\nstage: {number}\n")
    monkeypatch.setattr(recipe_paths, "recipes_root", lambda: folder)
    return folder


def test_names_and_order(root: Path) -> None:
    assert recipe_paths.recipe_names() == ["gama", "mini"]
    assert [path.stem for path in recipe_paths.stage_files(root)][-2:] == ["stage9", "stage10"]


def test_folder_by_name_and_by_path(root: Path, tmp_path: Path) -> None:
    assert recipe_paths.recipe_folder("gama") == root
    assert recipe_paths.recipe_folder("mini") == root / "mini"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "stage1.yaml").touch()
    assert recipe_paths.recipe_folder(mine) == mine
    with pytest.raises(RecipeError, match="holds no recipe"):
        recipe_paths.recipe_folder(root / "notes")
    with pytest.raises(RecipeError, match="there are: gama, mini .*did you mean 'mini'"):
        recipe_paths.recipe_folder("minni")


@pytest.mark.parametrize("place", ["gama/recipes", "recipes"], ids=["wheel", "checkout"])
def test_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setattr(recipe_paths, "__file__", str(tmp_path / "gama" / "training" / "recipe_paths.py"))
    (tmp_path / place).mkdir(parents=True)
    if place == "recipes":
        with pytest.raises(RecipeError, match="holds no recipes"):
            recipe_paths.recipes_root()
        (tmp_path / "pyproject.toml").touch()
    assert recipe_paths.recipes_root() == tmp_path / place


def test_this_installation_holds_recipes() -> None:
    assert (recipe_paths.recipes_root() / "README.md").is_file()


@pytest.mark.usefixtures("root")
def test_list(runner: CliRunner) -> None:
    lines = runner.invoke(cli, ["recipes", "list"]).stdout.splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [
        ["NAME", "STAGES", "SUMMARY"],
        ["gama", "10", "Full size, stage 1."],
        ["mini", "2", "Mini, stage 1: grün."],
    ]


@pytest.mark.usefixtures("root")
def test_list_as_json(runner: CliRunner) -> None:
    rows = [json.loads(line) for line in runner.invoke(cli, ["recipes", "list", "--json"]).stdout.splitlines()]
    assert [row["name"] for row in rows] == ["gama", "mini"]
    assert rows[1] == {"name": "mini", "stages": ["stage1", "stage2"], "summary": "Mini, stage 1: grün."}


@pytest.mark.usefixtures("root")
def test_show_prints_yaml(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["recipes", "show", "mini"])
    assert list(yaml.safe_load_all(result.stdout)) == [{"stage": 1}, {"stage": 2}]
    assert "# Mini, stage 2: grün." in result.stdout
    assert yaml.safe_load(runner.invoke(cli, ["recipes", "show", "mini", "--stage", "2"]).stdout) == {"stage": 2}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("words", "message"),
    [(["show", "maxi"], "no recipe 'maxi'"), (["show", "mini", "--stage", "3"], "recipe 'mini' has no stage 3")],
)
def test_show_of_what_is_not_there(runner: CliRunner, words: list[str], message: str) -> None:
    result = runner.invoke(cli, ["recipes", *words])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


def test_copy(runner: CliRunner, root: Path, tmp_path: Path) -> None:
    dest = tmp_path / "a" / "mine"
    result = runner.invoke(cli, ["recipes", "copy", "mini", str(dest)])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "copied 2 files" in result.stderr
    assert sorted(path.name for path in dest.iterdir()) == ["stage1.yaml", "stage2.yaml"]
    assert (dest / "stage2.yaml").read_bytes() == (root / "mini" / "stage2.yaml").read_bytes()


@pytest.mark.usefixtures("root")
def test_copy_overwrites_nothing(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "stage2.yaml").write_text("mine")
    result = runner.invoke(cli, ["recipes", "copy", "mini", str(tmp_path)])
    assert result.exit_code == 1
    assert "already holds stage2.yaml" in result.stderr
    assert (tmp_path / "stage2.yaml").read_text() == "mine"
    assert not (tmp_path / "stage1.yaml").exists()


def test_a_copy_of_mini_holds_everything_it_needs(runner: CliRunner, tmp_path: Path) -> None:
    from gama.training.curriculum import curriculum

    assert runner.invoke(cli, ["recipes", "copy", "mini", str(tmp_path / "mine")]).exit_code == 0
    stems = [file.stem for file in curriculum(tmp_path / "mine")]
    assert stems[-7:] == ["alignment", "reading", "stage1", "stage2", "stage3", "stage4", "stage5"]
    assert {"encoder", "language"} == set(stems[:-7]) and (tmp_path / "mine" / "model.yaml").is_file()
