"""A manifest is answered: in order, resumable, a bad clip costs one row, and several processes share it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import gama
from gama.checkpoints.bundled import model_folder
from gama.errors import CheckpointError, GamaError, LockedError, ManifestError
from gama.inference import opening
from gama.inference.asking import Asker
from gama.inference.fleet import Done, Run, Tally, Work, _shares
from gama.inference.hearing import asking
from gama.inference.journal import Journal
from gama.inference.rows import asked
from gama.instant.engine import has_instant_graphs

QUESTIONS = ("what happened?", "is there a dog?")


@pytest.fixture(scope="module")
def mini() -> Asker:
    return gama.load(runtime="onnx" if has_instant_graphs(model_folder()) else "torch")


@pytest.fixture
def work(tmp_path: Path, mini: Asker, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Six rows about four clips, one of which does not exist; answers of 4 tokens."""
    random = np.random.default_rng(0)
    for name in ("a.wav", "b.wav", "c.wav"):
        soundfile.write(tmp_path / name, 0.1 * random.standard_normal(8_000), 16_000)
    rows = [
        {"audio_id": "a.wav", "instruction": "what happened?", "output": "rain", "task": "what"},
        {"audio_id": "a.wav", "instruction": "is there a dog?"},
        {"audio_id": "none.wav", "instruction": "what happened?"},
        {"audio_id": "b.wav", "instruction": "describe the audio", "input": "briefly"},
        {"audio_id": "empty", "instruction": "what is rain?"},
        {"audio_id": "c.wav", "instruction": "what happened?"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.setattr(opening, "load", lambda **_: mini)
    return Work(tmp_path / "rows.json", (), tmp_path / "out" / "answers.jsonl", asking(max_new_tokens=4), 2)


def lines(work: Work) -> list[dict[str, Any]]:
    return [json.loads(line) for line in work.out.read_text().splitlines()]


def left(work: Work) -> list[str]:
    return sorted(path.name for path in work.out.parent.iterdir())


def test_answers_are_in_the_manifests_order(work: Work, mini: Asker) -> None:
    done = list(Run(work).done())
    found = lines(work)
    assert [row["row"] for row in found] == [1, 2, 3, 4, 5, 6] and left(work) == ["answers.jsonl"]
    assert [row["audio_id"] for row in found] == ["a.wav", "a.wav", "none.wav", "b.wav", "empty", "c.wav"]
    assert ["error" in row for row in found] == [False, False, True, False, False, False]
    assert found[2]["error"].endswith("none.wav: no such file") and "answer" not in found[2]
    assert (found[0]["output"], found[0]["task"], found[3]["input"]) == ("rain", "what", "briefly")
    folder = work.manifest.parent
    assert found[0]["answer"] == mini.ask(folder / "a.wav", "what happened?", max_new_tokens=4)
    briefly = "describe the audio\n\n### Input:\nbriefly"
    assert found[3]["answer"] == mini.ask(folder / "b.wav", briefly, max_new_tokens=4)
    assert found[4]["answer"] == mini.ask(None, "what is rain?", max_new_tokens=4)
    assert [bool(each.error) for each in done].count(True) == 1 and done[0] == Done("a.wav", 0.5)


def test_other_questions_about_each_clip(work: Work, tmp_path: Path) -> None:
    (tmp_path / "clips.jsonl").write_text('"a.wav"\n{"audio_id": "b.wav", "instruction": "not this"}\n')
    list(Run(replace(work, manifest=tmp_path / "clips.jsonl", questions=QUESTIONS)).done())
    assert [(row["row"], row["audio_id"], row["instruction"]) for row in lines(work)] == [
        (row, clip, question) for row, clip in ((1, "a.wav"), (2, "b.wav")) for question in QUESTIONS
    ]


def test_one_run_at_a_time_writes_an_output(work: Work) -> None:
    first = Run(work)
    with pytest.raises(LockedError, match="this process has been writing these answers"):
        Run(work)
    list(first.done())
    broken = replace(work, manifest=work.manifest.with_name("none.json"))
    for _ in range(2):  # what is refused keeps no lock
        with pytest.raises(ManifestError, match="no such manifest"):
            Run(broken)
    assert left(work) == ["answers.jsonl"]


def test_a_half_line_of_a_manifest_is_not_cut_off(work: Work) -> None:
    work.out.parent.mkdir()
    for content in ('{"audio_id": "a.wav"}\n{"audio', "notes without an end", '{"row": 1}\n{"row": 2, "audio_id'):
        work.out.write_text(content)
        for resume in (False, True):
            with pytest.raises(GamaError, match="holds something else than answers"):
                Run(work, resume=resume)
        assert work.out.read_text() == content
        assert left(work) == ["answers.jsonl"]


# --- going on


def broken_off(work: Work, count: int) -> list[Done]:
    """A run that ends after so many answers, in the middle of writing one."""
    stream = Run(work).done()
    done = [next(stream) for _ in range(count)]
    stream.close()  # type: ignore[attr-defined]
    with Journal(work.out).part().open("a") as file:
        file.write('{"row": 6, "audio_id": "c.w')
    assert not work.out.exists()
    return done


def test_a_run_that_broke_off_goes_on(work: Work, tmp_path: Path) -> None:
    broken_off(work, 2)
    kept = Journal(work.out).part().read_text().count("\n")
    assert kept >= 2
    soundfile.write(tmp_path / "none.wav", 0.1 * np.ones(8_000), 16_000)  # and what failed is asked again
    run = Run(work, resume=True)
    assert run.left + run.kept == 6 and run.kept in (kept, kept - 1)
    assert len(list(run.done())) == run.left
    resumed = lines(work)
    assert left(work) == ["answers.jsonl"] and not [row for row in resumed if "error" in row]
    list(Run(work).done())
    assert lines(work) == resumed


def test_without_resume_what_is_left_is_not_thrown_away(work: Work) -> None:
    broken_off(work, 1)
    with pytest.raises(GamaError, match=r"answers.jsonl.partial is left of a run that broke off \(--resume goes on"):
        Run(work)


def test_a_finished_run_is_not_repeated_but_for_what_failed(
    work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    list(Run(work).done())
    before = lines(work)
    run = Run(work, resume=True)
    assert (run.left, run.kept) == (1, 5)
    list(run.done())
    assert lines(work) == before
    soundfile.write(tmp_path / "none.wav", 0.1 * np.ones(8_000), 16_000)
    list(Run(work, resume=True).done())
    assert "answer" in lines(work)[2] and lines(work)[:2] == before[:2]

    def forbidden(**_: Any) -> Asker:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(opening, "load", forbidden)
    assert list(Run(work, resume=True).done()) == []


def test_an_output_of_another_manifest_is_refused(work: Work, tmp_path: Path) -> None:
    list(Run(work).done())
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"audio_id": "b.wav", "instruction": "what happened?"}]))
    with pytest.raises(GamaError, match=r"row 1 is about 'a.wav', in .*other.json about 'b.wav' \(resume with"):
        Run(replace(work, manifest=other), resume=True)
    work.out.write_text('{"clip": "a.wav"}\n')
    with pytest.raises(GamaError, match="answers.jsonl: holds something else than answers"):
        Run(work, resume=True)


# --- rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (7, "row 1 is int, expected an object"),
        ("a.wav", "row 1 is str, expected an object"),
        ({"instruction": "what?"}, "row 1: 'audio_id' is None, expected text"),
        ({"audio_id": "a.wav"}, "row 1: 'instruction' is None, expected text"),
        ({"audio_id": "a.wav", "instruction": " "}, "row 1: 'instruction' is ' ', expected text"),
        ({"audio_id": "a.wav", "instruction": "what?", "input": 3}, "row 1: 'input' is 3, expected text"),
    ],
)
def test_rows_that_cannot_be_asked(work: Work, row: Any, message: str) -> None:
    work.manifest.write_text(json.dumps([row]))
    with pytest.raises(ManifestError, match=message):
        Run(work)
    assert not work.out.exists()


# --- several processes


def test_shares_keep_clips_together(work: Work) -> None:
    rows = [{"audio_id": f"{clip}.wav", "instruction": f"q{q}"} for clip in range(100) for q in range(3)]
    work.manifest.write_text(json.dumps(rows))
    shares = _shares(work, list(range(10, 300)), 2)
    assert sorted(shares[0] + shares[1]) == list(range(10, 300))
    assert not {p // 3 for p in shares[0]} & {p // 3 for p in shares[1]}
    assert abs(len(shares[0]) - len(shares[1])) <= 70


def test_two_processes_answer_what_one_does(work: Work) -> None:
    list(Run(work).done())
    alone = lines(work)
    own = replace(work, loading={"threads": 2}, out=work.out.with_name("two.jsonl"))
    done = list(Run(own).done(["cpu", "cpu"]))
    assert len(done) == 6 and sorted(d.audio_id for d in done) == sorted(row["audio_id"] for row in alone)
    assert lines(own) == alone and left(own) == ["answers.jsonl", "two.jsonl"]


def test_what_is_wrong_with_the_model_of_a_process(work: Work) -> None:
    own = replace(work, loading={"name_or_dir": str(work.manifest.parent)})
    with pytest.raises(GamaError, match="holds no model: config.json is missing"):
        list(Run(own).done(["cpu"]))


def test_what_is_wrong_with_the_model(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: Any) -> Asker:
        raise CheckpointError("no weights")

    monkeypatch.setattr(opening, "load", broken)
    with pytest.raises(CheckpointError, match="no weights"):
        list(Run(work).done())


# --- counting


def test_the_tally() -> None:
    times = iter([10.0, 14.0])
    tally = Tally(lambda: next(times))
    for done in (Done("a", 3.0), Done("a", 3.0), Done("b", 5.0), Done("c", error="no such file")):
        tally.add(done)
    assert tally.facts() == {
        "answered": 3, "failed": 1, "clips": 2, "sound_s": 8.0, "took_s": 4.0,
        "answers_per_s": 0.75, "clips_per_s": 0.5, "times_real_time": 2.0,
    }  # fmt: skip


def test_clips_lie_beside_the_manifest_or_where_it_is_said(work: Work) -> None:
    from gama.data.remap import Remap

    assert next(asked(work.manifest)).clip == work.manifest.parent / "a.wav"
    assert next(asked(work.manifest, (), Remap(Path("/data")))).clip == Path("/data/a.wav")
