"""``gama prepare combine``: repeats, seed, and the mixtures of a YAML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gama.data.manifest import read
from gama.data.mixture import Part, combine, mixture_file, parts_of
from gama.data.sources.preparing import MODULES
from gama.errors import ManifestError
from gama_cli.main import cli

PAPER = mixture_file("paper")


def manifest(path: Path, name: str, count: int, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"audio_id": f"{name}.wav", "instruction": "q"} | more
    path.write_text(json.dumps([row | {"output": f"{name}{index}"} for index in range(count)]))
    return path


def test_combine_repeats_and_shuffles_by_its_seed(tmp_path: Path) -> None:
    one, two = manifest(tmp_path / "one" / "m.json", "a", 3), manifest(tmp_path / "two.json", "b", 400)
    parts = [Part(one, 2), Part(two, 0.5)]
    taken = combine(parts, tmp_path / "out.jsonl", seed=1)
    first = [row.output for row in read(tmp_path / "out.jsonl")]
    assert taken[0] == 6 and 150 < taken[1] < 250
    assert sorted(o for o in first if o[0] == "a") == ["a0", "a0", "a1", "a1", "a2", "a2"]
    assert len(set(first)) == len(first) - 3
    assert first != sorted(first)
    assert {row.audio for row in read(tmp_path / "out.jsonl")} == {tmp_path / "one" / "a.wav", tmp_path / "b.wav"}
    combine(parts, tmp_path / "again.jsonl", seed=1)
    assert [row.output for row in read(tmp_path / "again.jsonl")] == first
    combine(parts, tmp_path / "other.jsonl", seed=2)
    assert [row.output for row in read(tmp_path / "other.jsonl")] != first


def test_splits_and_tasks(tmp_path: Path) -> None:
    one = manifest(tmp_path / "a.json", "a", 2, split="test", task="cla")
    two = manifest(tmp_path / "b.json", "b", 3, split="train", task="cap")
    three = manifest(tmp_path / "c.json", "c", 4, task="cla")
    out = tmp_path / "out.json"
    assert combine([Part(one), Part(two), Part(three)], out, splits=["train"]) == [0, 3, 4]
    assert combine([Part(two, tasks=("cla",)), Part(three, tasks=("cla",))], out) == [0, 4]


def test_the_mixture_of_the_paper(tmp_path: Path) -> None:
    for stage in range(1, 6):
        parts, missing = parts_of(PAPER, f"stage{stage}", tmp_path)
        assert not parts and missing
        unread = {"freesound", "soundbible", "musicqa", "magna"}
        assert {name.removesuffix("-open") for name in missing} <= set(MODULES) | unread
    manifest(tmp_path / "soundbible.jsonl", "a", 1)
    manifest(tmp_path / "clotho.json", "a", 1)
    parts, missing = parts_of(PAPER, "stage3", tmp_path)
    assert [(part.manifest.name, part.repeats) for part in parts] == [("clotho.json", 2), ("soundbible.jsonl", 10)]
    assert len(missing) == 11


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage2: []", "names no 'stage1'; there are: stage2"),
        ("[]", "names no 'stage1'"),
        ("stage1: {}", "stage1 is no list of sets"),
        ("stage1: [3]", "stage1, set 1: 'set' is not a name"),
        ("stage1: [{set: a}, {set: b, repeat: 2}]", "set 2: no key 'repeat'; there are: pairs_in_paper, repeats"),
        ("stage1: [{set: a, repeats: 0}]", "'repeats' is 0, expected more than 0"),
        ("stage1: [{set: a, repeats: true}]", "'repeats' is True"),
        ("stage1: [{set: a, repeats: .nan}]", "'repeats' is nan"),
        ("stage1: [{set: a, tasks: cla}]", "'tasks' is 'cla', expected a list"),
        ("a: !!python/object:os.system x", "not YAML: line 1 carries the tag"),
        ("a: [", "not YAML"),
    ],
)
def test_mixtures_of_another_form(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        parts_of(path, "stage1", tmp_path)


def test_the_command(runner: CliRunner, tmp_path: Path) -> None:
    first, out = manifest(tmp_path / "a.json", "a", 2), tmp_path / "out.jsonl"
    result = runner.invoke(cli, ["prepare", "combine", f"{first}*3", str(first), "--out", str(out)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [f"6 rows of {first}", f"2 rows of {first}", f"wrote 8 rows to {out}"]
    assert len(read(out)) == 8


def test_the_command_with_a_mixture(runner: CliRunner, tmp_path: Path) -> None:
    manifest(tmp_path / "clotho.json", "a", 2)
    out = tmp_path / "out.jsonl"
    words = ["prepare", "combine", "--mixture", "paper", "--folder", str(tmp_path), "--out", str(out)]
    result = runner.invoke(cli, [*words, "--stage", "3"])
    assert result.exit_code == 1
    assert "12 sets of stage3 are not in" in result.stderr and "audioset-strong" in result.stderr
    result = runner.invoke(cli, [*words, "--stage", "3", "--allow-missing"])
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == f"wrote 4 rows to {out}"
    assert "give --stage" in runner.invoke(cli, words).stderr
    assert "no mixture 'papers'" in runner.invoke(cli, [*words[:3], "papers", *words[4:], "--stage", "1"]).stderr
    assert "give manifests or --mixture" in runner.invoke(cli, ["prepare", "combine", "--out", str(out)]).stderr
