"""``gama ask`` with several questions, presets, a cache of prefixes, and manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import gama
from gama.checkpoints.bundled import model_folder
from gama.inference.asking import Asker
from gama.inference.prefixes import Prefixes
from gama.instant.engine import has_instant_graphs
from gama_cli.main import cli

Ask = Callable[..., Result]
TWO = ("--question", "what happened?", "--question", "is there a dog?")


@pytest.fixture(scope="module")
def mini() -> Asker:
    return gama.load(runtime="onnx" if has_instant_graphs(model_folder()) else "torch")


@pytest.fixture
def given(mini: Asker, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each question was asked with."""
    found: list[dict[str, Any]] = []
    ask = mini.ask
    monkeypatch.setattr(mini, "ask", lambda *words, **how: found.append(how) or ask(*words, **how))
    return found


@pytest.fixture
def ask(runner: CliRunner, mini: Asker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """``gama ask …`` by a shared model, among a.wav, b.wav and rows.json."""
    monkeypatch.setattr("gama.inference.opening.load", lambda *_, **__: mini)
    monkeypatch.setattr(mini, "prefixes", Prefixes())
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.1 * random.standard_normal(8_000), 16_000)
    rows = [{"audio_id": name, "instruction": "what?"} for name in ("b.wav", "a.wav", "none.wav")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return lambda *words, **options: runner.invoke(cli, ["ask", *words], **options)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- several questions


def test_one_clip_and_several_questions(ask: Ask, mini: Asker) -> None:
    answers = [mini.ask("a.wav", question) for question in ("what happened?", "is there a dog?")]
    result = ask("a.wav", *TWO)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"what happened? {answers[0]}\nis there a dog? {answers[1]}\n"
    assert ask("-", *TWO, input=Path("a.wav").read_bytes()).stdout == result.stdout
    (single,) = ask("a.wav", "--question", "what happened?").stdout.splitlines()
    assert single == answers[0]


def test_several_clips_and_questions(ask: Ask) -> None:
    rows = objects(ask("a.wav", "b.wav", *TWO, "--json").stdout)
    assert [(row["clip"], row["question"]) for row in rows] == [
        (clip, question) for clip in ("a.wav", "b.wav") for question in ("what happened?", "is there a dog?")
    ]
    shown = ask("a.wav", "b.wav", *TWO).stdout.splitlines()
    assert shown == [f"{row['clip']}: {row['question']} {row['answer']}" for row in rows]
    (first, second) = objects(ask("a.wav", "b.wav", *TWO, "--together", "--json").stdout)
    assert first["clip"] == ["a.wav", "b.wav"] and second["question"] == "is there a dog?"
    assert len(ask("--text-only", *TWO).stdout.splitlines()) == 2


def test_a_clip_that_cannot_be_read_is_told_once(ask: Ask) -> None:
    result = ask("none.wav", "b.wav", *TWO, "--json")
    assert result.exit_code == 1 and result.stderr == "error: none.wav: no such file\n"
    assert ["error" in row for row in objects(result.stdout)] == [True, True, False, False]
    result = ask("none.wav", *TWO, "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: none.wav: no such file\n")


# --- settings


def test_a_preset_and_what_is_given_beside_it(ask: Ask, given: list[dict[str, Any]]) -> None:
    words = ("a.wav", "what?", "--json", "--seed", "1")
    for more in ([], ["--preset", "gama-paper"], ["--temperature", "0", "--preset", "gama-paper", "--top-k", "9"]):
        assert ask(*words, *more).exit_code == 0
    named = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty")
    assert [tuple(how[name] for name in named) for how in given] == [
        (200, 0.0, 1.0, 0, 1.0),
        (400, 0.1, 0.95, 500, 1.1),
        (400, 0.0, 0.95, 9, 1.1),
    ]
    result = ask("a.wav", "what?", "--preset", "paper")
    assert result.exit_code == 1 and "unknown preset 'paper' (known: gama-paper)" in result.stderr


def test_a_preset_and_the_settings_file(ask: Ask, given: list[dict[str, Any]], tmp_path: Path) -> None:
    settings = tmp_path / "home" / "config.toml"
    settings.parent.mkdir()
    settings.write_text("temperature = 0.7\n")
    ask("a.wav", "what?", "--json", "--preset", "gama-paper", "--seed", "1")
    settings.write_text('temperature = 0.7\npreset = "gama-paper"\n')
    ask("a.wav", "what?", "--json", "--seed", "1")
    assert [(how["temperature"], how["top_k"]) for how in given] == [(0.1, 500), (0.7, 500)]


# --- prefixes on disk


def test_prefixes_are_kept_where_it_is_said(ask: Ask, mini: Asker, tmp_path: Path) -> None:
    answer = ask("a.wav", "what?").stdout
    assert mini.prefixes.store is None
    for words, folder in ((["--cache", "kept"], tmp_path / "kept"), (["--cache"], tmp_path / "home" / "prefixes")):
        mini.prefixes.clear()
        assert ask("a.wav", "what?", *words).stdout == answer
        assert len(list(folder.rglob("*.prefix"))) == 1
    result = ask("--cache", "a.wav", "what?")
    assert (
        result.exit_code == 2 and "'a.wav' is a file; write --cache=DIR, or --cache behind all words" in result.stderr
    )
    result = ask("a.wav", "what?", "--cache", "a.wav/kept")
    assert result.exit_code == 1 and "a.wav/kept: no cache can be kept there" in result.stderr


# --- manifests


def test_a_manifest_to_a_file(ask: Ask, tmp_path: Path) -> None:
    words = ("--manifest", "rows.json", "--out", "answers.jsonl", "--max-new-tokens", "4")
    result = ask(*words, "--json")
    assert result.exit_code == 1
    failed, throughput, last = result.stderr.splitlines()
    assert failed.startswith("error: ") and failed.endswith("none.wav: no such file")
    assert throughput.startswith("2 answer(s) about 2 clip(s) and 1 s of sound in ") and "clips/s" in throughput
    assert last == "error: 1 row(s) have no answer"
    (facts,) = objects(result.stdout)
    assert (facts["answered"], facts["failed"]) == (2, 1)
    rows = objects((tmp_path / "answers.jsonl").read_text())
    assert [row["audio_id"] for row in rows] == ["b.wav", "a.wav", "none.wav"]
    again = ask(*words, "--resume")
    assert again.stderr.splitlines()[0] == "2 of 3 answers are there already" and again.stdout == ""
    assert objects((tmp_path / "answers.jsonl").read_text()) == rows


def test_a_manifest_to_stdout(ask: Ask) -> None:
    result = ask("--manifest", "rows.json", *TWO, "--max-new-tokens", "4")
    rows = objects(result.stdout)
    assert [(row["audio_id"], row["instruction"]) for row in rows][:3] == [
        ("b.wav", "what happened?"),
        ("b.wav", "is there a dog?"),
        ("a.wav", "what happened?"),
    ]
    assert result.exit_code == 1 and "error: 2 row(s) have no answer" in result.stderr


def test_a_manifest_that_is_not_there(ask: Ask) -> None:
    result = ask("--manifest", "none.json", "--out", "answers.jsonl")
    assert (result.exit_code, result.stdout) == (1, "") and "none.json: no such manifest" in result.stderr
