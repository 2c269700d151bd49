"""What goes wrong with one clip, row or question is that one's error; the others are answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import gama
from gama import audio
from gama.checkpoints.bundled import model_folder
from gama.errors import AudioError, GamaError, ManifestError, OptionError, PromptError, row_error
from gama.inference.asking import Asker
from gama.inference.batches import replies
from gama.inference.fleet import Run, Work
from gama.inference.hearing import Asking, Request, asking
from gama.inference.rows import asked
from gama.instant.engine import has_instant_graphs
from gama_cli.main import cli


@pytest.fixture(scope="module")
def mini() -> Asker:
    return gama.load(runtime="onnx" if has_instant_graphs(model_folder()) else "torch")


@pytest.fixture
def folder(tmp_path: Path, mini: Asker, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.wav and b.wav, and the packaged model for every command."""
    random = np.random.default_rng(0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.1 * random.standard_normal(8_000), 16_000)
    monkeypatch.setattr("gama.inference.opening.load", lambda *_, **__: mini)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Exception:
    """Decoding b.wav ends in an exception that no decoder of ours should raise."""
    error, load = IndexError("list index out of range"), audio.load

    def broken(source: Any, **options: Any) -> Any:
        if str(source).endswith("b.wav"):
            raise error
        return load(source, **options)

    monkeypatch.setattr(audio, "load", broken)
    return error


# --- the edge of a row


def test_an_error_for_users_is_left_as_it_is() -> None:
    error = AudioError("x.wav: no such file")
    assert row_error(error, "x.wav") is error


def test_another_one_is_named_with_its_type_and_cause() -> None:
    error = IndexError("list index\nout of range")
    found = row_error(error, "x.wav", AudioError)
    assert type(found) is AudioError and found.__cause__ is error
    assert str(found) == "x.wav: IndexError: list index out of range (run again with --debug to see where)"
    assert str(row_error(OSError(5, "Input/output error"), "x.wav")) == "x.wav: Input/output error"
    assert row_error(KeyError(), "x.wav").message == "x.wav: KeyError"


def test_the_traceback_is_shown_with_debug(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    row_error(IndexError("no"), "x.wav")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("GAMA_DEBUG", "1")
    row_error(IndexError("no"), "x.wav")
    assert "IndexError: no" in capsys.readouterr().err


def test_errors_of_clips_and_prompts_are_value_errors() -> None:
    assert issubclass(AudioError, ValueError) and issubclass(PromptError, ValueError)
    assert issubclass(OptionError, PromptError) and issubclass(OptionError, TypeError)


# --- batches


def test_a_decoder_that_fails_costs_its_clip(folder: Path, mini: Asker, failing: Exception) -> None:
    names = [folder / name for name in ("a.wav", "b.wav", "a.wav")]
    how = asking(max_new_tokens=3)
    found = list(replies(lambda: mini, [Request(name, "what happened?") for name in names], how))
    assert [r.error is None for r in found] == [True, False, True]
    assert isinstance(found[1].error, AudioError) and found[1].error.__cause__ is failing
    assert found[1].error.message == f"{folder / 'b.wav'}: IndexError: list index out of range"


def test_a_tokenizer_that_fails_costs_its_question(folder: Path, mini: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = mini.encode

    def broken(segments: Sequence[Any]) -> list[int]:
        if "odd" in str(segments):
            raise TypeError("TextEncodeInput must be Union[TextInputSequence, ...]")
        return encode(segments)

    monkeypatch.setattr(mini, "encode", broken)
    questions = ["what happened?", "is it odd?", "what happened?"]
    requests = [Request(folder / "a.wav", question) for question in questions]
    found = list(replies(lambda: mini, requests, asking(max_new_tokens=3)))
    assert [r.error is None for r in found] == [True, False, True] and found[0].answer == found[2].answer
    assert str(found[1].error).startswith("'is it odd?': TypeError: TextEncodeInput must be")


def test_a_clip_that_the_model_refuses_costs_its_row(
    folder: Path, mini: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that are no longer finite are found while a batch is computed; the rest of it is answered."""
    said = mini.said

    def refusing(prompts: Sequence[Any], sampling: Any) -> Any:
        if any("b.wav" in window.source for prompt in prompts for window in prompt.windows):
            raise AudioError("b.wav: its scores are not numbers")
        return said(prompts, sampling)

    monkeypatch.setattr(mini, "said", refusing)
    requests = [Request(folder / name, "what happened?") for name in ("a.wav", "b.wav", "a.wav")]
    found = list(replies(lambda: mini, requests, asking(max_new_tokens=3)))
    assert [r.error and r.error.message for r in found] == [None, "b.wav: its scores are not numbers", None]


# --- commands


def test_ask_answers_the_other_clips(runner: CliRunner, folder: Path, failing: Exception) -> None:
    done = runner.invoke(cli, ["ask", "a.wav", "b.wav", "what happened?", "--max-new-tokens", "3"])
    assert done.exit_code == 1
    assert done.stdout.startswith("a.wav: ") and len(done.stdout.splitlines()) == 1
    expected = "error: b.wav: IndexError: list index out of range (run again with --debug to see where)\n"
    assert done.stderr == expected
    debug = runner.invoke(cli, ["ask", "a.wav", "b.wav", "what happened?", "--max-new-tokens", "3", "--debug"])
    assert "Traceback" in debug.stderr and debug.stderr.endswith(expected)
    alone = runner.invoke(cli, ["ask", "b.wav", "what happened?"])
    assert (alone.exit_code, alone.stdout, alone.stderr) == (1, "", expected)


def test_a_question_that_is_no_text_costs_its_answers(runner: CliRunner, folder: Path) -> None:
    words = ["--question", "what?", "--question", "\udcff?", "--max-new-tokens", "3", "--json"]
    done = runner.invoke(cli, ["ask", "a.wav", *words])
    assert done.exit_code == 1
    answered, failed = [json.loads(line) for line in done.stdout.splitlines()]
    assert "answer" in answered and "half of a surrogate pair (\\udcff) at character 1" in failed["error"]


def test_eval_scores_the_other_rows(runner: CliRunner, folder: Path, failing: Exception) -> None:
    event = {"label": "dog", "start": 0.0, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}
    base = {"instruction": "What?", "output": "dog", "task": "what", "events": [event], "duration": 2.0}
    rows = [
        base | {"audio_id": "a.wav"},
        base | {"audio_id": "b.wav"},
        base | {"audio_id": "a.wav", "output": "\ud83d"},
        base | {"audio_id": "a.wav", "instruction": " "},
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    done = runner.invoke(cli, ["eval", "rows.json", "--json", "--max-new-tokens", "3"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["what, one event"]["n"] == 1
    assert "warning: rows.json: row 3: 'output' holds half of a surrogate pair" in done.stderr
    assert "error: b.wav: IndexError: list index out of range" in done.stderr
    assert "error: a.wav: the question is empty" in done.stderr
    assert "error: 2 of 3 row(s) have no answer and are not counted" in done.stderr


# --- manifests


ROWS: list[Any] = [
    {"audio_id": "a.wav", "instruction": "what happened?", "output": "A \ud83d dog"},
    {"audio_id": "a.wav", "instruction": "what happened?", "output": float("nan")},
    {"audio_id": "a.wav", "instruction": "what \ud83d?"},
    {"audio_id": "\ud83d.wav", "instruction": "what happened?"},
    {"audio_id": "a\0.wav", "instruction": "what happened?"},
    7,
    {"audio_id": "a.wav", "instruction": "what happened?", "output": "rain"},
    {"audio_id": "a.wav"},
    {"audio_id": "b.wav", "instruction": "what happened?"},
]


def test_malformed_rows_of_a_manifest_are_answered_with_what_is_wrong(folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    work = Work(folder / "rows.json", (), folder / "answers.jsonl", asking(max_new_tokens=3), 2)
    done = list(Run(work).done())
    lines = [json.loads(line) for line in work.out.read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(1, 10)) and len(done) == 9
    assert ["answer" in line for line in lines] == [False] * 6 + [True, False, True]
    for number, text in enumerate(
        (
            "row 1: 'output' holds half of a surrogate pair (\\ud83d) at character 3",
            "row 2: 'output' is nan",
            "row 3: 'instruction' holds half of a surrogate pair",
            "row 4: 'audio_id' is",
            "row 5: 'audio_id' is",
            "row 6 is int, expected an object",
        )
    ):
        assert text in lines[number]["error"]
    assert lines[6]["output"] == "rain" and "row 8: 'instruction' is None" in lines[7]["error"]
    assert Run(work, resume=True).left == 7  # what failed is asked again, and its error said again


def test_a_manifest_to_stdout(runner: CliRunner, folder: Path, failing: Exception) -> None:
    (folder / "rows.json").write_text(json.dumps([*ROWS[:1], *ROWS[6:]]))
    done = runner.invoke(cli, ["ask", "--manifest", "rows.json", "--max-new-tokens", "3"])
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert ["answer" in line for line in lines] == [False, True, False, False]
    assert lines[3]["error"] == "b.wav: IndexError: list index out of range (run again with --debug to see where)"
    assert "error: 3 row(s) have no answer" in done.stderr


def test_a_manifest_without_any_row_that_can_be_used_is_refused(folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps(ROWS[:6]))
    with pytest.raises(ManifestError, match="row 1: 'output' holds half"):
        list(asked(folder / "rows.json"))
    assert len(list(asked(folder / "rows.json", ["what?"]))) == 6  # of which only the clips are used


def test_a_file_of_other_things_is_refused_at_its_first_rows(folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps([0] * 1000 + [ROWS[6]]))
    with pytest.raises(ManifestError, match="row 1 is int, expected an object"):
        list(asked(folder / "rows.json"))
    (folder / "rows.json").write_text(json.dumps([0] * 999 + [ROWS[6]]))
    assert [row.error is None for row in asked(folder / "rows.json")] == [False] * 999 + [True]


def test_a_name_of_bytes_that_are_no_text_is_a_name(folder: Path) -> None:
    """Python carries such bytes as single halves of surrogate pairs."""
    name = b"caf\xe9.wav"
    (folder / "a.wav").rename(folder / name.decode("utf-8", "surrogateescape"))
    (folder / "rows.json").write_text('[{"audio_id": "caf\\udce9.wav", "instruction": "what?"}]')
    (row,) = asked(folder / "rows.json")
    assert row.error is None and row.clip is not None and row.clip.is_file()


# --- keyword arguments


def test_arrays_are_heard_at_their_own_rate(mini: Asker) -> None:
    random = np.random.default_rng(1)
    sound = (0.1 * random.standard_normal(44_100)).astype(np.float32)
    how: dict[str, Any] = {"max_new_tokens": 4}
    expected = mini.ask(audio.load(sound, sampling_rate=44_100), "what?", **how)
    for answer in (
        mini.ask(sound, "what?", sampling_rate=44_100, **how),
        "".join(mini.stream(sound, "what?", sampling_rate=44_100, **how)),
        mini.batch([sound], "what?", sampling_rate=44_100, **how)[0],
        mini.ask_many(sound, ["what?"], sampling_rate=44_100, **how)[0],
    ):
        assert answer == expected
    answer = mini.ask(sound, "what?", sampling_rate=44_100, **how)
    assert (answer.clips[0].original_rate, answer.clips[0].duration) == (44_100, 1.0)
    assert mini.ask(sound, "what?", **how).clips[0].original_rate == 16_000
    with pytest.raises(PromptError, match="sampling_rate=8000 was given for the decoded clip"):
        mini.ask(audio.load(sound, sampling_rate=44_100), "what?", sampling_rate=8000)


def test_unknown_keyword_arguments_name_the_nearest(mini: Asker) -> None:
    for error in (TypeError, PromptError, GamaError):
        with pytest.raises(error, match=r"no keyword argument 'max_tokens' \(did you mean 'max_new_tokens'\?\)"):
            mini.ask(None, "what?", max_tokens=3)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="no keyword argument 'zzz' .there are: preset, max_new_tokens"):
        asking(zzz=1)  # type: ignore[call-arg]
    assert asking() == Asking()


def test_one_text_in_place_of_a_list(mini: Asker) -> None:
    with pytest.raises(
        OptionError, match=r"questions is 'what\?', a list of questions was expected \(ask\(\) takes one"
    ):
        mini.ask_many(None, "what?")
    with pytest.raises(OptionError, match=r"clips is 'a.wav', a list of clips was expected"):
        mini.batch("a.wav", "what?")
    with pytest.raises(OptionError, match="the question is 3, text was expected"):
        mini.ask(None, 3)  # type: ignore[arg-type]
