"""``gama eval`` around a model that answers at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gama.inference import opening
from gama.inference.answers import Answer
from gama.inference.batches import Reply
from gama.inference.hearing import Request
from gama_cli.main import cli

EVENT = {"start": 0.0, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}


class Model:
    """Says ``A dog.`` about everything.

    Args:
        calls: what it was loaded and asked with.
    """

    def __init__(self, calls: list[dict[str, Any]]) -> None:
        self.calls = calls

    def replies(self, requests: Iterable[Request], *, batch_size: int, **how: Any) -> Iterator[Reply]:
        assert batch_size == 8
        self.calls.append(how)
        return (Reply(Answer("A dog.")) for _ in requests)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the model was loaded with."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(opening, "load", lambda **options: calls.append(options) or Model(calls))
    return calls


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        {"audio_id": f"{label}.wav", "instruction": "What?", "output": label, "task": "what", "fold": fold}
        | {"events": [EVENT | {"label": label}], "duration": 2.0}
        for fold, label in enumerate(("dog", "rain", "rooster"), 1)
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def test_a_table(runner: CliRunner, manifest: Path, loaded: list[dict[str, Any]]) -> None:
    done = runner.invoke(cli, ["eval", str(manifest), "--model", "x"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == ["TASK", "N", "RIGHT", "SHARE"]
    assert ["what,", "one", "event", "3", "1", "33.3", "%"] in [line.split() for line in done.stdout.splitlines()]
    assert loaded[0]["name_or_dir"] == "x"


def test_how_is_answered(runner: CliRunner, manifest: Path, loaded: list[dict[str, Any]]) -> None:
    words = ["--preset", "gama-paper", "--top-k", "9", "--seed", "1", "--channel", "0", "--runtime", "torch"]
    done = runner.invoke(cli, ["eval", str(manifest), *words, "--threads", "3"])
    assert done.exit_code == 0, done.output
    loading, how = loaded
    assert (loading["runtime"], loading["threads"], loading["frontend"]) == ("torch", 3, None)
    assert how == {
        **{"max_new_tokens": 400, "temperature": 0.1, "top_p": 0.95, "top_k": 9, "repetition_penalty": 1.1},
        **{"seed": 1, "template": None, "channel": 0, "max_duration": 1800.0},
    }


def test_json_folds_labels_and_answers(runner: CliRunner, manifest: Path, loaded: list[dict[str, Any]]) -> None:
    answers = manifest.parent / "answers.jsonl"
    asked = ["eval", str(manifest), "--json", "--folds", "1,2", "--labels", "esc10", "--answers", str(answers)]
    done = runner.invoke(cli, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["what, one event"] == {"n": 2, "right": 1, "accuracy": 0.5}
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [(line["expected"], line["answer"], line["right"]) for line in lines] == [
        ("dog", "A dog.", True),
        ("rain", "A dog.", False),
    ]
    assert not list(manifest.parent.glob("*.tmp"))
    assert (
        json.loads(runner.invoke(cli, ["eval", str(manifest), "--json", "--limit", "1"]).stdout)["what, one event"]["n"]
        == 1
    )


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--folds", "a"], 2, "'a' is not a list of fold numbers"),
        (["--labels", "dgo"], 1, "error: no class 'dgo' (did you mean 'dog'?)"),
        (["--folds", "7"], 1, "error: no clip is left"),
    ],
)
def test_what_cannot_be_asked_is_said_before_the_model_is_loaded(
    runner: CliRunner, manifest: Path, loaded: list[dict[str, Any]], options: list[str], status: int, message: str
) -> None:
    done = runner.invoke(cli, ["eval", str(manifest), *options])
    assert (done.exit_code, done.stdout, loaded) == (status, "", [])
    assert message in done.stderr


def test_a_missing_manifest(runner: CliRunner, tmp_path: Path, loaded: list[dict[str, Any]]) -> None:
    done = runner.invoke(cli, ["eval", str(tmp_path / "none.json")])
    assert (done.exit_code, loaded) == (1, [])
    assert "none.json: no such manifest" in done.stderr
