"""``gama ask``: what is printed where, for one clip, many, several together and none.

The model is loaded once and shared; a few tests start a process, where the process is what they are about. What is
asserted about answers holds for any weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import gama
from gama.inference import engine
from gama.inference.engine import Gama
from gama.text import printable
from gama_cli.main import cli

QUESTION = "what happened?"
Ask = Callable[..., Result]


@pytest.fixture(scope="module")
def mini() -> Gama:
    return gama.load(runtime="torch")


@pytest.fixture
def ask(runner: CliRunner, mini: Gama, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """``gama ask …`` in this process by the shared model; answers of at most 6 tokens."""
    monkeypatch.setattr("gama.inference.opening.load", lambda *_, **__: mini)

    def run(*words: object, **options: Any) -> Result:
        result = runner.invoke(cli, ["ask", *map(str, words), "--max-new-tokens", "6"], **options)
        assert not result.stderr or result.exit_code, result.stderr
        return result

    return run


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a.wav (1 s), b.flac (2 s, stereo, 44.1 kHz), long.wav (25 s) and silent.wav."""
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * random.standard_normal(16_000), 16_000)
    soundfile.write(tmp_path / "b.flac", 0.1 * random.standard_normal((88_200, 2)), 44_100)
    soundfile.write(tmp_path / "long.wav", 0.1 * random.standard_normal(400_000), 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def process(*words: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    """``gama ask …`` as a user starts it."""
    command = [sys.executable, "-m", "gama_cli.main", "ask", *map(str, words)]
    return subprocess.run(command, check=False, timeout=300, **{"capture_output": True, "text": True, **options})


def expected(mini: Gama, clip: Any, question: str = QUESTION, **options: Any) -> str:
    return "\n".join(map(printable, mini.ask(clip, question, max_new_tokens=6, **options).split("\n")))


def rows(result: Result) -> list[dict[str, Any]]:
    """The JSON lines of a run."""
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.split("\n")
    assert lines.pop() == "" and lines == list(map(printable, lines))
    return [json.loads(line) for line in lines]


# --- plain answers


def test_one_clip_is_answered_without_its_name(ask: Ask, mini: Gama, clips: Path) -> None:
    result = ask("a.wav", QUESTION)
    assert (result.exit_code, result.stdout) == (0, expected(mini, clips / "a.wav") + "\n")


def test_several_clips_are_answered_after_their_names(ask: Ask, mini: Gama, clips: Path) -> None:
    result = ask("b.flac", "a.wav", QUESTION)
    answers = [f"{name}: {expected(mini, clips / name)}\n" for name in ("b.flac", "a.wav")]
    assert (result.exit_code, result.stdout) == (0, "".join(answers))


def test_a_long_clip_is_answered_window_by_window(ask: Ask, mini: Gama, clips: Path) -> None:
    result = ask("long.wav", QUESTION)
    assert result.stdout == expected(mini, clips / "long.wav") + "\n"
    for span in ("[0.0–10.2 s] ", "\n[10.2–20.5 s] ", "\n[20.5–25.0 s] "):
        assert span in result.stdout


def test_a_span(ask: Ask, mini: Gama, clips: Path) -> None:
    result = ask("long.wav", QUESTION, "--from", "3", "--to", "5.5", "--json")
    (row,) = rows(result)
    assert [(w["start"], w["end"]) for w in row["windows"]] == [(3.0, 5.5)]
    assert (row["start_s"], row["duration_s"]) == (3.0, 2.5)
    assert row["answer"] == mini.ask(clips / "long.wav", QUESTION, start=3.0, end=5.5, max_new_tokens=6)


def test_a_clip_from_stdin(ask: Ask, mini: Gama, clips: Path) -> None:
    content = (clips / "b.flac").read_bytes()
    assert ask("-", QUESTION, input=content).stdout == expected(mini, clips / "b.flac") + "\n"
    (row,) = rows(ask("-", QUESTION, "--json", input=content))
    assert (row["clip"], row["sample_rate"], row["channels"]) == ("-", 44_100, 2)


def test_clips_together(ask: Ask, mini: Gama, clips: Path) -> None:
    names = ("a.wav", "long.wav", "b.flac")
    answer = expected(mini, [clips / name for name in names], "which is louder?")
    assert ask(*names, "which is louder?", "--together").stdout == answer + "\n"
    (row,) = rows(ask(*names, "which is louder?", "--together", "--json"))
    assert row["clip"] == list(names) and [c["clip"] for c in row["clips"]] == list(names)
    assert [c["duration_s"] for c in row["clips"]] == [1.0, 25.0, 2.0]
    assert row["tokens"]["audio"] == 5 * mini.model.config.num_audio_tokens and "windows" not in row


def test_without_a_clip(ask: Ask, mini: Gama) -> None:
    assert ask("--text-only", QUESTION).stdout == expected(mini, None) + "\n"
    (row,) = rows(ask("--text-only", QUESTION, "--json"))
    assert row["clip"] is None and row["tokens"]["audio"] == 0 and "duration_s" not in row


def test_one_channel(ask: Ask, mini: Gama, clips: Path) -> None:
    (row,) = rows(ask("b.flac", QUESTION, "--channel", "1", "--json"))
    assert row["channel"] == 1
    assert row["answer"] == mini.ask(clips / "b.flac", QUESTION, channel=1, max_new_tokens=6)
    result = ask("b.flac", QUESTION, "--channel", "2")
    assert result.exit_code == 1 and "2 channels, 0 to 1" in result.stderr


def test_a_seed_repeats_a_sampled_answer(ask: Ask, clips: Path) -> None:
    def drawn(seed: int) -> str:
        return ask("a.wav", QUESTION, "--temperature", "5", "--top-p", "0.99", "--seed", seed).stdout

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1


def test_pieces_are_printed_as_they_come(ask: Ask, mini: Gama, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr("click.echo", lambda text="", nl=True, **_: printed.append(f"{text}\n" if nl else text))
    pieces = list(mini.stream(clips / "a.wav", QUESTION, max_new_tokens=6))
    ask("a.wav", QUESTION)
    assert printed == [*map(printable, pieces or [""]), "\n"]


def test_control_characters_of_an_answer_are_escaped(ask: Ask, mini: Gama, clips: Path, monkeypatch: Any) -> None:
    def stream(*_: object, **__: object) -> Any:
        yield from ("one \x1b[31m", "\ntwo \x9b\u202e", "\r")

    monkeypatch.setattr(mini, "stream", stream)
    assert ask("a.wav", QUESTION).stdout == "one \\x1b[31m\ntwo \\x9b\\u202e\\x0d\n"


# --- JSON lines


def test_json_has_one_object_a_clip(ask: Ask, mini: Gama, clips: Path) -> None:
    (clips / "sub").mkdir()
    (clips / "a.wav").rename(clips / "sub" / "a.wav")
    found = rows(ask("./sub/../sub/a.wav", "long.wav", QUESTION, "--json"))
    assert [row["clip"] for row in found] == ["./sub/../sub/a.wav", "long.wav"]  # as given
    assert [len(row["windows"]) for row in found] == [1, 3]
    row = found[0]
    assert row["answer"] == mini.ask(clips / "sub/a.wav", QUESTION, max_new_tokens=6) == row["windows"][0]["answer"]
    assert row["question"] == QUESTION
    assert (row["duration_s"], row["sample_rate"], row["channels"], row["channel"]) == (1.0, 16_000, 1, "mix")
    assert row["silent"] is False and -20 < row["peak_db"] < 0 and -30 < row["rms_db"] < row["peak_db"]
    model = {"name": "mini", "quantization": "none", "device": "cpu", "dtype": "float32", "runtime": "torch"}
    assert row["model"].pop("weight_bytes") > 10**6
    assert row["model"] == model
    assert 0 <= row["timings"]["encode_s"] <= row["timings"]["first_token_s"] <= row["timings"]["total_s"]
    tokens = row["tokens"]
    assert tokens["audio"] == mini.model.config.num_audio_tokens < tokens["prompt"] and 1 <= tokens["new"] <= 6
    assert row["windows"][0]["finish"] in ("stop", "length")


def test_json_of_silence(ask: Ask, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[list[int]] = []

    def recording(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        prompts.append(inputs["input_ids"][0].tolist())
        return plain(model, inputs, *rest)

    plain = engine.decode
    monkeypatch.setattr(engine, "decode", recording)
    (row,) = rows(ask("silent.wav", QUESTION, "--json"))
    assert row["silent"] is True and row["peak_db"] is None and row["rms_db"] is None
    assert "silent" in _text(prompts[0])
    rows(ask("a.wav", QUESTION, "--json"))
    assert "silent" not in _text(prompts[1])


def _text(ids: list[int]) -> str:
    processor = gama.GamaProcessor.from_pretrained(Path(gama.__file__).parent / "assets" / "mini")
    return str(processor.tokenizer.decode([i for i in ids if i != processor.audio_token_id]))


@pytest.mark.parametrize(
    "name", ["two\nlines.wav", "red \x1b[31m.wav", "c1 \x9b.wav", "\u2028 \u202e.wav", "æ 日本.wav"]
)
def test_odd_names(ask: Ask, clips: Path, name: str) -> None:
    (clips / "a.wav").rename(clips / name)
    (row, other) = rows(ask(name, "b.flac", QUESTION, "--json"))
    assert (row["clip"], other["clip"]) == (name, "b.flac")
    shown = ask(name, "b.flac", QUESTION).stdout
    assert shown.startswith(f"{printable(name)}: ") and "\x1b" not in shown and "\x9b" not in shown


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_text(ask: Ask, clips: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.wav")
    (clips / "a.wav").rename(clips / name)
    result = ask(name, "b.flac", QUESTION, "--json")
    assert rows(result)[0]["clip"] == name and result.stdout.startswith('{"clip": "\\udcff\\udcfe.wav"')
    assert ask(name, "b.flac", QUESTION).stdout.startswith("\\xff\\xfe.wav: ")


# --- in a process of its own


def test_quantized_answers_print_nothing_else(clips: Path) -> None:
    done = process("a.wav", "b.flac", QUESTION, "--quant", "8bit", "--json", "--max-new-tokens", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["model"]["quantization"] for line in done.stdout.splitlines()] == ["8bit", "8bit"]


def test_a_piped_clip_where_stdout_is_not_unicode(clips: Path, mini: Gama) -> None:
    content = (clips / "long.wav").read_bytes()
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = process("-", QUESTION, "--max-new-tokens", "6", input=content, text=False, env=environment)
    assert done.stderr == b"" and done.returncode == 0
    answer = expected(mini, clips / "long.wav") + "\n"
    assert "–" in answer and done.stdout == answer.encode("latin-1", "backslashreplace")


@pytest.mark.skipif(os.name != "posix", reason="pipes of another kind")
def test_a_reader_that_leaves_is_no_error(clips: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = process("a.wav", QUESTION, "--max-new-tokens", "3", capture_output=False, stdout=write, stderr=-1)
    finally:
        os.close(write)
    assert done.stderr == "" and done.returncode == 1
