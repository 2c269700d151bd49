"""Which stages run, from what, into where; and everything that is missing said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from training import tiny

from gama.checkpoints.bundled import model_folder
from gama.errors import RecipeError
from gama.training.curriculum import Request, Step, curriculum, plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe ``mine`` of two pre-trainings and two stages, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    text = {"objective": "text", "starts_from": None, "model": tiny.MODEL, "lora": None}
    tiny.write_stage(mine / "words.yaml", **text, data={"scenes": 4})
    tags = text | {"objective": "tagging", "data": {"manifests": ["real/manifest.json", "mixed/manifest.json"]}}
    tiny.write_stage(mine / "ears.yaml", **tags)
    both = {"audio_tower": "ears", "language_model": "words"}
    tiny.write_stage(mine / "stage1.yaml", starts_from=both, data={"manifests": ["own/manifest.json"]})
    tiny.write_stage(mine / "stage2.yaml", starts_from="stage1")
    (mine / "model.yaml").write_text("text_config: {}\n")
    return mine


def rows(path: Path) -> Path:
    return tiny.write_rows(path, [{"audio_id": "a.wav", "instruction": "q", "output": "a"}])


def model(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def names(steps: list[Step]) -> list[str]:
    return [step.name for step in steps]


def test_parents_come_first(folder: Path) -> None:
    assert [f.stem for f in curriculum(folder)] == ["ears", "words", "stage1", "stage2"]
    tiny.write_stage(folder / "ears.yaml", starts_from="stage2")
    with pytest.raises(RecipeError, match="the stages ears, stage1, stage2 start from each other"):
        curriculum(folder)


def test_one_stage(folder: Path) -> None:
    (step,) = plan(Request("mine", "words"))
    assert (step.name, step.output, step.parents) == ("mine/words", Path("runs/mine/words"), {})
    data = rows(Path("my/rows.json"))
    tower, words = model(Path("runs/mine/ears")), model(Path("runs/mine/words"))
    (step,) = plan(Request("mine", "1", data=(data,), overrides=("max_steps=9",)))
    assert step.parents == {"audio_tower": tower, "language_model": words}
    assert step.recipe.data.manifests == (str(data),)
    assert step.recipe.training["max_steps"] == 9
    (step,) = plan(Request(str(folder / "stage1.yaml"), "1", data=(data,)))
    assert (step.name, step.output) == ("mine/stage1", Path("runs/mine/stage1"))
    assert step.parents["audio_tower"] == tower
    (step,) = plan(Request("mine", "1", data=(data,), output=Path("elsewhere/one"), parent=words))
    assert step.output == Path("elsewhere/one")
    assert step.parents == {"audio_tower": words, "language_model": words}


def test_all_stages(folder: Path) -> None:
    data = (rows(Path("my/rows.json")),)
    steps = plan(Request("mine", "all", data=data))
    assert names(steps) == ["mine/ears", "mine/words", "mine/stage1", "mine/stage2"]
    assert steps[3].parents["language_model"] == steps[2].output
    elsewhere = plan(Request("mine", "all", data=data, output=Path("there"), parent=model(Path("base"))))
    assert [s.output for s in elsewhere][0] == Path("there/ears")
    assert elsewhere[3].parents["language_model"] == Path("there/stage1")  # not the model given by --from
    for stem in ("ears", "words"):
        model(Path("runs/mine") / stem)
        (Path("runs/mine") / stem / "recipe.yaml").touch()
    with pytest.raises(RecipeError, match="runs/mine/ears already holds a run"):
        plan(Request("mine", "all", data=data))
    assert names(plan(Request("mine", "all", data=data, resume=True))) == ["mine/stage1", "mine/stage2"]
    model(Path("runs/mine/stage2"))  # of another parent than the stage 1 that is to come
    with pytest.raises(RecipeError, match="runs/mine/stage2 is finished, but not runs/mine/stage1, with which"):
        plan(Request("mine", "all", data=data, resume=True))


def test_everything_missing_is_named_with_what_makes_it(folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Request("mine", "1"))
    assert "3 things are missing" in caught.value.message
    for part in (
        "runs/mine/ears (make it with: gama train --recipe mine --stage ears)",
        "runs/mine/words (make it with: gama train --recipe mine --stage words)",
        "data/own/manifest.json (make it with: gama prepare scenes --count",
    ):
        assert part in caught.value.message
    assert caught.value.hint == "what works now: gama train --recipe mini --stage 1"
    with pytest.raises(RecipeError, match=r"gama prepare real --audio-root DIR --out data/real\).*data/mixed/man"):
        plan(Request("mine", "ears"))
    with pytest.raises(
        RecipeError, match=r"data for stage2.yaml \(give --data MANIFEST, made with: gama prepare DATASET"
    ):
        plan(Request("mine", "2"))
    with pytest.raises(RecipeError, match=r"the manifest rows.json \("):  # no command makes a user's own file
        plan(Request("mine", "2", data=(Path("rows.json"),)))
    with pytest.raises(RecipeError, match="the model nowhere given by --from"):
        plan(Request("mine", "2", data=(Path("rows.json"),), parent=Path("nowhere")))
    with pytest.raises(RecipeError, match=r"a model for words.yaml to start from"):
        plan(Request("mine", "words", overrides=("model=null",)))
    start = "gama convert --base runs/mine/Llama-2-7b-chat-hf-qformer --stage1 -o runs/mine/far"
    with pytest.raises(RecipeError, match=rf"runs/mine/far \(no stage of the recipe: give .* --from DIR, or .*{start}"):
        plan(Request("mine", "2", overrides=("starts_from=far",)))
    with pytest.raises(RecipeError, match=r"runs/mine/stage1 \(make.*runs/mine/ears \(make.*runs/mine/words \(make"):
        plan(Request("mine", "2"))  # down to what a parent begins with
    with pytest.raises(RecipeError, match="convert .* -o runs/paper/base --aggregator paper"):
        plan(Request("paper", "1"))
    assert not Path("runs").exists()


def test_wrong_requests(folder: Path) -> None:
    with pytest.raises(RecipeError, match="recipe 'mine' has no stage '7' .it has: ears, words, stage1, stage2"):
        plan(Request("mine", "7"))
    (folder / "ears.yaml").write_text("a: !b c")
    with pytest.raises(RecipeError, match="ears.yaml: line 1 carries the tag"):
        plan(Request("mine", "all"))


def test_an_output_folder_is_looked_at_before_anything_runs(folder: Path) -> None:
    output = Path("here")
    output.mkdir()
    assert plan(Request("mine", "words", output=output))
    (output / "notes.txt").touch()
    with pytest.raises(RecipeError, match="here already holds a run"):
        plan(Request("mine", "words", output=output))
    with pytest.raises(RecipeError, match="here holds no run to continue"):
        plan(Request("mine", "words", output=output, resume=True))
    (output / "recipe.yaml").touch()
    assert plan(Request("mine", "words", output=output, resume=True))


def sets(folder: Path, text: str) -> None:
    (folder / "data.yaml").write_text(text)


def test_scenes_that_are_not_there_are_made_and_recordings_left_out(folder: Path) -> None:
    sets(folder, "own: {count: 4, seed: 3}\nmixed: {count: 6, recordings: real}\nrecordings: [real]\n")
    tiny.write_stage(folder / "one.yaml", data={"manifests": [f"{n}/manifest.json" for n in ("own", "mixed", "real")]})
    (step,) = plan(Request("mine", "one", parent=model(Path("base"))))
    assert step.recipe.data.manifests == ("data/own/manifest.json",)
    assert [(s.name, s.count, s.seed) for s in step.makes] == [("own", 4, 3)]
    assert step.left_out == (Path("data/mixed/manifest.json"), Path("data/real/manifest.json"))
    rows(Path("data/real/manifest.json"))
    (step,) = plan(Request("mine", "one", parent=Path("base")))
    assert [s.name for s in step.makes] == ["own", "mixed"]
    assert (step.left_out, len(step.recipe.data.manifests)) == ((), 3)
    (step,) = plan(Request("mine", "one", parent=Path("base"), data=(rows(Path("my.json")),)))
    assert (step.makes, step.recipe.data.manifests) == ((), ("my.json",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("own: {seed: 3}", "data.yaml: own: .*expected count"),
        ("own: {count: 3, sed: 1}", "unknown keys sed"),
        ("own: {count: 3, 1: 1, sed: 2}", "unknown keys 1, sed"),
        ("own: {count: 0}", "own.count is 0, expected 1 or more"),
        ("own: {count: 1, seed: -1}", "own.seed is -1, expected 0 or more"),
        ("own: {count: 1, real_share: 1.5}", "own.real_share is 1.5, expected 0 to 1"),
        ("own: {count: 1, recordings: ../../x}", "'../../x' is no name of a folder"),
        (f"own: {{count: 1, recordings: {'a' * 300}}}", "is no name of a folder"),
        ("own: {count: many}", "own.count is 'many'"),
        ("recordings: 3", "recordings is 3"),
    ],
)
def test_a_wrong_data_file(folder: Path, text: str, says: str) -> None:
    sets(folder, text)
    with pytest.raises(RecipeError, match=says):
        plan(Request("mine", "ears"))


def test_a_stage_that_only_recordings_feed_says_so(folder: Path) -> None:
    sets(folder, "mixed: {count: 6, recordings: real}\nrecordings: [real]\n")
    with pytest.raises(RecipeError, match=r"data for ears.yaml"):
        plan(Request("mine", "ears"))


def test_where_a_stage_starts(folder: Path) -> None:
    data = (rows(Path("my/rows.json")),)
    packaged = model_folder("mini")
    (step,) = plan(Request("mine", "2", data=data, parent=Path("mini")))
    assert (set(step.parents.values()), step.stand_in) == ({packaged}, None)
    tiny.write_stage(folder / "stage2.yaml", starts_from="stage1", otherwise="mini")
    (step,) = plan(Request("mine", "2", data=data))
    assert (set(step.parents.values()), step.stand_in) == ({packaged}, "mini")
    parent = model(Path("runs/mine/stage1"))
    (step,) = plan(Request("mine", "2", data=data))
    assert (set(step.parents.values()), step.stand_in) == ({parent}, None)
    (step,) = plan(Request("mine", "2", data=data, parent=Path("scratch"), overrides=(f"model={tiny.MODEL}",)))
    assert (step.parents, step.stand_in) == ({}, None)
    tiny.write_stage(folder / "stage1.yaml", starts_from="far", model=tiny.MODEL)
    steps = plan(Request("mine", "all", data=data, output=Path("new"), parent=Path("scratch")))
    assert [s.parents.get("language_model") for s in steps[2:]] == [None, Path("new/stage1")]
    with pytest.raises(RecipeError, match=r"a model for stage2.yaml to start from"):
        plan(Request("mine", "2", data=data, parent=Path("scratch")))


def test_a_parent_whose_language_model_is_gone_is_named(folder: Path) -> None:
    data = (rows(Path("my/rows.json")),)
    parent = model(Path("runs/mine/stage1"))
    (parent / "base.json").write_text('{"folder": "/nowhere/base", "sha256": "0"}')
    with pytest.raises(RecipeError, match=r"the language model of runs/mine/stage1: /nowhere/base \(put it back"):
        plan(Request("mine", "2", data=data))
    (Path("base")).mkdir()
    (Path("base") / "model.safetensors").touch()
    (parent / "base.json").write_text(f'{{"folder": "{Path("base").resolve()}", "sha256": "0"}}')
    assert plan(Request("mine", "2", data=data))
