"""Answers held against the truth: what is right, what is a refusal, which rows are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gama.data.manifest import Row
from gama.data.scenes.scene import Event, Role, Scene
from gama.errors import ManifestError
from gama.evaluation.scoring import Result, right, select, summary


def scene(*labels: str, background: str | None = None) -> Scene:
    def event(label: str, role: Role) -> Event:
        return Event(label, 0.0, 1.0, 1, -20.0, 900.0, role)

    behind = () if background is None else (event(background, "background"),)
    return Scene(3.0, (*(event(label, "event") for label in labels), *behind))


def row(output: str = "", task: str = "what", **rest: Any) -> Row:
    return Row(audio=Path("a.wav"), instruction="What?", output=output, task=task, **rest)


@pytest.mark.parametrize(
    ("truth", "answer", "verdict"),
    [
        (scene("dog"), "A dog is barking.", True),
        (scene("dog"), "I hear a cat.", False),
        (scene("dog"), "", False),
        (scene("dog", "rain"), "A dog barks in the rain.", True),
        (scene("dog", "rain"), "A dog barks.", False),
        (scene("dog", background="rain"), "A dog barks.", True),
        (scene(), "I hear nothing.", True),
        (scene(), "A dog barks.", False),
    ],
)
def test_rows_with_events_alone(truth: Scene, answer: str, verdict: bool) -> None:
    assert right(row(scene=truth), answer) is verdict


@pytest.mark.parametrize(
    ("check", "answer", "verdict"),
    [
        ({"kind": "word", "key": "yes", "choices": ["yes", "no"]}, "Yes, there is.", True),
        ({"kind": "word", "key": "yes", "choices": ["yes", "no"]}, "No. Yes?", False),
        ({"kind": "number", "key": "three"}, "It barks 3 times.", True),
        ({"kind": "number", "key": "three"}, "Twice: two.", False),
        ({"kind": "seconds", "key": "", "value": 4.2}, "At about 5 seconds.", True),
        ({"kind": "seconds", "key": "", "value": 4.2}, "At 6.0 s.", False),
        ({"kind": "classes", "key": "dog", "also": ["rain"]}, "A dog in the rain.", True),
        ({"kind": "classes", "key": "dog"}, "A dog in the rain.", False),
    ],
)
def test_rows_with_a_check(check: dict[str, Any], answer: str, verdict: bool) -> None:
    # the check decides, also where there are events
    assert right(row(check=check, scene=scene("cat")), answer) is verdict


@pytest.mark.parametrize(
    "check",
    [{"kind": "word"}, {"key": "x", "kind": "number"}, {"kind": "seconds", "key": ""}, {"kind": "class", "key": "x"}],
)
def test_checks_that_cannot_be_used(check: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="a.wav: 'What.': 'check' cannot be used"):
        right(row(check=check), "A dog, 3 times")


def test_a_row_without_truth() -> None:
    with pytest.raises(ManifestError, match="a.wav: 'What.' carries neither 'check' nor 'events'"):
        right(row(), "x")


def test_summary_by_task() -> None:
    results = [
        Result(row("A dog.", scene=scene("dog")), "A dog.", True),
        Result(row("A dog, rain.", scene=scene("dog", "rain")), "I hear nothing.", False),
        Result(row("Yes.", task="presence"), "Yes.", True),
        Result(row("No.", task="presence"), "Yes.", False),
        Result(row("x", task=""), "x", True),
        Result(row("I hear nothing.", task="silence"), "I hear nothing.", True),
        Result(row("I hear nothing.", task="describe"), "I hear nothing.", True),  # a true refusal of another task
    ]
    table = summary(results)
    assert table["what, one event"] == {"n": 1, "right": 1, "accuracy": 1.0}
    assert table["what, several"] == {"n": 1, "right": 0, "accuracy": 0.0}
    assert table["presence"]["accuracy"] == 0.5
    assert {"question", "silence", "describe"} <= table.keys()
    assert table["false refusals"] == {"n": 5, "right": 1, "accuracy": 0.2}
    assert list(table) == sorted(table)
    assert summary([]) == {}


def event(label: str) -> dict[str, Any]:
    return {"label": label, "start": 0.0, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for fold, label in [(1, "dog"), (2, "dog"), (2, "rain")]:
        for question in ("one?", "two?"):
            base = {"audio_id": f"{fold}{label}.wav", "instruction": question, "output": label, "task": "what"}
            rows.append({**base, "fold": fold, "events": [event(label)], "duration": 2.0})
    rows.append({"audio_id": "empty", "instruction": "Hi", "output": "Hi"})
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def chosen(manifest: Path, **options: Any) -> list[str]:
    return [group[0].audio.stem for group in select([manifest], **options) if group[0].audio is not None]


def test_which_rows_are_asked(manifest: Path) -> None:
    assert chosen(manifest) == ["1dog", "2dog", "2rain"]
    assert chosen(manifest, folds=(2,)) == ["2dog", "2rain"]
    assert chosen(manifest, labels=("dog",)) == ["1dog", "2dog"]
    assert chosen(manifest, folds=(2,), labels=("dog", "rain"), limit=1) == ["2dog"]
    with pytest.raises(ManifestError, match=r"no class 'dgo' \(did you mean 'dog'"):
        chosen(manifest, labels=("dgo",))
    with pytest.raises(ManifestError, match="no clip is left of .*rows.json"):
        chosen(manifest, folds=(9,))


def test_rows_that_cannot_be_scored_are_found_before_any_is_asked(manifest: Path) -> None:
    rows = json.loads(manifest.read_text())
    manifest.write_text(json.dumps([*rows, {"audio_id": "z.wav", "instruction": "q", "output": "a"}]))
    with pytest.raises(ManifestError, match=r"z\.wav: 'q' carries neither"):
        select([manifest])


def test_comparisons_are_counted_apart() -> None:
    def task(name: str, form: str) -> str:
        check = {"kind": "word", "key": "yes", "choices": ["yes", "no"], "form": form}
        return Result(row(task=name, check=check), "Yes.", True).task

    assert task("loudness", "how loud") == "loudness, of one"
    assert task("loudness", "louder yes/no") == "loudness, which is more"
    assert task("pitch", "how high") == "pitch, of one"
    assert task("pitch", "higher") == "pitch, which is more"
    assert task("order", "after") == "order"
