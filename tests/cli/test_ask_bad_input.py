"""``gama ask`` and what cannot be answered: one line on stderr, nothing on stdout, no model loaded for it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from test_audio import ogg_page, patched, wav

import gama
from gama.inference.engine import Gama
from gama_cli.main import cli

QUESTION = "what happened?"
MINI_VIDEO = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + b"\0\0\0\x08free\0\0\0\x10mdat" + bytes(8)
Run = Callable[..., Result]


def floats(*, value: float) -> bytes:
    """A WAV of floats, one of which is ``value``."""
    content = wav(subtype="FLOAT")
    return content[:-400] + np.float32(value).tobytes() + content[-396:]


def flac() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000, format="FLAC")
    return file.getvalue()


def nine_hours() -> bytes:
    """An Opus file of 9 h in pages of 255 empty packets of 60 ms."""
    header = b"OpusHead\x01\x01" + (0).to_bytes(2, "little") + (48_000).to_bytes(4, "little") + bytes(3)
    count = 9 * 3600 * 50 // 3 // 255
    pages = [ogg_page(2, 0, 0, [header]), ogg_page(0, 0, 1, [b"OpusTags" + bytes(8)])]
    for number in range(count):
        pages.append(ogg_page(4 * (number == count - 1), (number + 1) * 255 * 2880, number + 2, [b"\x18"] * 255))
    return b"".join(pages)


CONTENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.wav": (lambda: b"", "is empty (0 bytes)"),
    "corrupt.mp3": (lambda: b"#!/bin/sh\necho hello\n" * 50, "not a sound file"),
    "truncated.wav": (lambda: wav()[:20_000], "promises 32000 bytes of samples"),
    "truncated.flac": (lambda: flac()[:-2000], "cut off"),
    "lying.wav": (lambda: patched(wav(), data=1_000_000_000), "cut off"),
    "zero_samples.wav": (lambda: wav(0.0), "holds no samples"),
    "one_sample.wav": (lambda: wav(1 / 16_000), "1 sample at 16 kHz"),
    "nan.wav": (lambda: floats(value=np.nan), "holds NaN at"),
    "infinite.wav": (lambda: floats(value=np.inf), "an infinite value at"),
    "zero_hertz.wav": (lambda: patched(wav(), rate=0), "0 Hz"),
    "video.mp4": (lambda: MINI_VIDEO, "video.mp4: "),
    "nine_hours.opus": (nine_hours, "lasts 8 h 59 min"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with good.wav."""
    (tmp_path / "good.wav").write_bytes(wav())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., str]:
    """Runs ``gama ask …``, which must fail with a line, and returns that line; loading a model fails the test."""

    def forbidden(*_: object, **__: object) -> Gama:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("gama.inference.opening.load", forbidden)

    def run(*words: str, status: int = 1, **options: Any) -> str:
        return line_of(runner.invoke(cli, ["ask", *words], **options), status)

    return run


def line_of(result: Result, status: int = 1) -> str:
    assert (result.exit_code, result.stdout) == (status, ""), result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    line = result.stderr.rstrip("\n")
    assert line.isprintable() and "Traceback" not in line
    return line.removeprefix("error: ")


@pytest.fixture(scope="module")
def mini() -> Gama:
    return gama.load(runtime="torch")


@pytest.fixture
def ask(runner: CliRunner, mini: Gama, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Run:
    """``gama ask …`` by a shared model."""
    monkeypatch.setattr("gama.inference.opening.load", lambda *_, **__: mini)
    return lambda *words, **options: runner.invoke(cli, ["ask", *words, "--max-new-tokens", "3"], **options)


# --- the clip


@pytest.mark.parametrize("name", CONTENTS)
def test_a_bad_file(name: str, folder: Path, refused: Callable[..., str]) -> None:
    content, message = CONTENTS[name]
    (folder / name).write_bytes(content())
    for as_json in ([], ["--json"], ["--together"]):
        line = refused(name, QUESTION, *as_json)
        assert line.startswith(f"{name}: ") and message in line, line


@pytest.mark.parametrize("name", ["truncated.wav", "zero_samples.wav", "empty.wav"])
def test_a_bad_clip_from_stdin(name: str, refused: Callable[..., str]) -> None:
    content, message = CONTENTS[name]
    line = refused("-", QUESTION, input=content())
    assert line.startswith("-: ") and message.split(" bytes of")[0] in line


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("missing.wav", "missing.wav: no such file"),
        (".", ".: is a directory"),
        ("https://example.org/dog.wav", "https://example.org/dog.wav: is a URL"),
        ("", "an empty file name was given"),
        ("/dev/null", "/dev/null: is not a regular file"),
        ("good.wav/x.wav", "good.wav/x.wav: "),
        ("x" * 5000, ": cannot be opened: "),
        ("bell \x07\x1b[31m\n.wav", "bell \\x07\\x1b[31m\\x0a.wav: no such file"),
        ("\u202egnp.wav", "\\u202egnp.wav: no such file"),
    ],
)
def test_a_bad_path(clip: str, message: str, refused: Callable[..., str]) -> None:
    assert message in refused(clip, QUESTION)


def test_an_address_comes_with_a_hint(refused: Callable[..., str]) -> None:
    assert "download it first" in refused("https://example.org/dog.wav", QUESTION)


def test_an_unreadable_file(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gama.audio.source.open", denied, raising=False)
    assert refused("good.wav", QUESTION) == "good.wav: no permission to read it"


def test_a_clip_that_is_too_long(refused: Callable[..., str]) -> None:
    line = refused("good.wav", QUESTION, "--max-duration", "0.5")
    assert "lasts 1.00 s, the limit is 0.50 s" in line and "--from" in line and "--max-duration" in line


@pytest.mark.parametrize("span", [("--from", "2"), ("--from", "0.5", "--to", "0.4")])
def test_a_span_outside_the_clip(span: tuple[str, ...], refused: Callable[..., str]) -> None:
    assert "the clip lasts 1.00 s" in refused("good.wav", QUESTION, *span)


def test_bad_clips_are_refused_without_torch(folder: Path) -> None:
    names = [*CONTENTS, "missing.wav", ".", "https://example.org/dog.wav"]
    for name, (content, _) in CONTENTS.items():
        (folder / name).write_bytes(content())
    script = (
        "import json, sys\n"
        "from gama_cli.main import cli\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    try: cli(['ask', name, 'what?'])\n"
        "    except SystemExit as stop: assert stop.code == 1, name\n"
        "try: cli(['ask', *json.loads(sys.argv[1]), 'what?'])\n"
        "except SystemExit as stop: assert stop.code == 1\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", script, json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert len(lines) == 2 * len(names) and all(line.startswith("error: ") for line in lines)


# --- several clips


@pytest.mark.parametrize("as_json", [False, True])
def test_the_good_clips_of_a_batch_are_answered(as_json: bool, ask: Run, folder: Path) -> None:
    (folder / "empty.wav").write_bytes(b"")
    words = ["good.wav", "missing.wav", "./good.wav", "empty.wav", QUESTION]
    result = ask(*words, *["--json"] * as_json)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    if as_json:
        rows = [json.loads(line) for line in lines]
        assert [row["clip"] for row in rows] == words[:4]
        assert rows[1] == {"clip": "missing.wav", "question": QUESTION, "error": "missing.wav: no such file"}
        assert ["error" in row for row in rows] == ["answer" not in row for row in rows] == [False, True, False, True]
    else:
        assert [line.split(": ")[0] for line in lines] == ["good.wav", "./good.wav"]
    assert result.stderr.splitlines() == ["error: missing.wav: no such file", "error: empty.wav: is empty (0 bytes)"]


def test_one_bad_clip_ends_a_question_about_all_together(refused: Callable[..., str]) -> None:
    assert refused("good.wav", "missing.wav", QUESTION, "--together") == "missing.wav: no such file"


def test_what_is_wrong_with_all_clips_is_said_once(ask: Run) -> None:
    assert "context holds" in line_of(ask("good.wav", "good.wav", "why? " * 1000))


def test_more_clips_together_than_the_context_holds(ask: Run) -> None:
    assert "11 clip window(s)" in line_of(ask(*["good.wav"] * 11, QUESTION, "--together"))


# --- the question


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question(question: str, refused: Callable[..., str]) -> None:
    assert "the question is empty" in refused("good.wav", question)
    assert "the question is empty" in refused("--text-only", question)
    assert "the question is empty" in refused("good.wav", "--question", "what?", "--question", question)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_question_beyond_the_context(as_json: bool, ask: Run) -> None:
    line = line_of(ask("good.wav", "why? " * 1000, *["--json"] * as_json))
    assert "context holds 1024" in line and "ask a shorter question" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a clip and a question"),
        (("--question", "what?"), "no clip: give one"),
        (("good.wav", "what?", "--resume"), "--resume belongs to --manifest"),
        (("good.wav", "what?", "--devices", "cpu,"), "'cpu,' is not a list of devices"),
        (("good.wav", "--manifest", "rows.json"), "--manifest takes neither clips"),
        (("--manifest", "rows.json", "--resume"), "need --out FILE"),
        (("good.wav", "what?", "--cache-size", "much"), "'much' is not a size"),
        (("good.wav", "what?", "--threads", "0"), "x>=1"),
        (("good.wav",), "no question: the last argument, 'good.wav', is a clip"),
        (("good.wav", "good.wav"), "no question"),
        (("-",), "no question"),
        (("what happened?",), "no clip: 'what happened?' is taken for the question"),
        (("red \x1b[31m?",), "no clip: 'red \\x1b[31m?' is taken for the question"),
        (("--text-only", "good.wav", "what?"), "--text-only takes a question and no clip"),
        (("-", "-", "what?"), "stdin (-) can be read once only"),
        (("good.wav", "what?", "--colour"), "no such option"),
        (("good.wav", "what?", "--quant", "2bit"), "'2bit' is not one of"),
        (("good.wav", "what?", "--channel", "left"), "neither 'mix' nor a channel number"),
        (("good.wav", "what?", "--temperature", "-1"), "x>=0"),
        (("good.wav", "what?", "--temperature", "nan"), "not a finite number"),
        (("good.wav", "what?", "--top-p", "0"), "0<x<=1"),
        (("good.wav", "what?", "--max-new-tokens", "0"), "x>=1"),
    ],
)
def test_usage_errors(words: tuple[str, ...], message: str, refused: Callable[..., str]) -> None:
    line = refused(*words, status=2)
    assert message in line and "ask --help" in line


# --- model, template, device


def test_names_are_checked_before_anything_is_read(refused: Callable[..., str]) -> None:
    line = refused("missing.wav", QUESTION, "--template", "nope\x1b")
    assert line == "unknown template 'nope\\x1b' (known: alpaca, gama, plain)"
    assert "no model 'maxi'" in refused("missing.wav", "missing.wav", QUESTION, "--model", "maxi")
    assert "config.json is missing" in refused("good.wav", QUESTION, "--model", ".")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(runner: CliRunner, folder: Path) -> None:
    line = line_of(runner.invoke(cli, ["ask", "good.wav", "good.wav", QUESTION, "--device", "cuda"]))
    assert line == "device 'cuda' is not available: PyTorch sees 0 CUDA device(s) (--device cpu)"


def test_an_unknown_device(runner: CliRunner, folder: Path) -> None:
    line = line_of(runner.invoke(cli, ["ask", "good.wav", QUESTION, "--device", "toaster"]))
    assert line.startswith("no device is called 'toaster'")


def test_a_broken_model(runner: CliRunner, folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "gama"')
    line = line_of(runner.invoke(cli, ["ask", "good.wav", QUESTION, "--model", "model"]))
    assert line.startswith("model/config.json: cannot be read as JSON")


def test_debug_shows_the_traceback(runner: CliRunner, folder: Path) -> None:
    result = runner.invoke(cli, ["ask", "missing.wav", QUESTION, "--debug"])
    assert result.exit_code == 1 and result.stdout == ""
    assert "Traceback (most recent call last)" in result.stderr and "AudioError" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: missing.wav: no such file"
