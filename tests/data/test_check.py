"""``gama prepare check``: every kind of fault is found, named and left out of the cleaned manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from gama.data.check import KINDS, Checker, Limits, Report, dropped_beside
from gama.data.manifest import read
from gama.data.origins import origin
from gama.data.remap import Remap
from gama_cli.main import cli


def sound(path: Path, seconds: float = 0.5, rate: int = 16000, seed: int | None = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * rate)
    samples = np.zeros(count) if seed is None else np.random.default_rng(seed).normal(0, 0.1, count)
    soundfile.write(path, samples, rate)


def row(clip: str, **more: Any) -> dict[str, Any]:
    return {"audio_id": clip, "instruction": "What?", "output": "A dog."} | more


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def found(report: Report) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """One row of every kind that needs no second manifest, and two that are good."""
    sound(tmp_path / "good.wav", seed=1)
    sound(tmp_path / "copy.flac", seed=1)
    sound(tmp_path / "silent.wav", seed=None)
    sound(tmp_path / "slow.wav", rate=8000, seed=2)
    sound(tmp_path / "long.wav", 11, seed=3)
    sound(tmp_path / "blip.wav", 0.02, seed=4)
    soundfile.write(tmp_path / "over.wav", np.linspace(-9, 9, 8000), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "copy.flac", soundfile.read(tmp_path / "good.wav")[0], 16000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    rows = [
        row("good.wav"),
        row("empty"),
        row("gone.wav"),
        row("broken.wav"),
        row("blip.wav"),
        row("silent.wav"),
        row("slow.wav"),
        row("long.wav"),
        row("copy.flac"),
        row("over.wav"),
        row("good.wav", output=" "),
        row("good.wav", instruction=""),
        row("good.wav", output="word " * 40),
        {"audio_id": "good.wav", "instruction": "What?"},
        7,
    ]
    return write(tmp_path / "rows.json", rows)


def words(text: str) -> int:
    return len(text.split())


def test_every_kind_is_found(manifest: Path) -> None:
    report = Checker([manifest], limits=Limits(tokens=30), count_tokens=words).run()
    once = set(KINDS) - {"both-sides", "malformed"}
    assert found(report) == dict.fromkeys(once, 1) | {"malformed": 2}
    assert (report.rows, report.clips, report.kept, report.constant) == (15, 9, 7, 3)
    assert report.examples["malformed"][0].detail == f"{manifest}: row 14: 'output' is None, expected text (" + (
        "every row needs audio_id, instruction and output)"
    )
    assert report.examples["missing"][0].row == 3
    over = manifest.with_name("over.wav")
    assert report.examples["over-range"][0].detail == f"{over}: its samples reach 9 times full scale"
    assert json.loads(json.dumps(report.to_json()))["found"]["silent"]["rows"] == 1


def test_the_cleaned_manifest_and_what_was_dropped(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean" / "rows.jsonl"
    report = Checker([manifest], limits=Limits(tokens=30), count_tokens=words).run(out)
    kept = read(out)
    assert [r.audio.name if r.audio else None for r in kept] == [
        *("good.wav", None, "slow.wav", "long.wav", "copy.flac", "over.wav", "good.wav")
    ]
    assert all(r.audio is None or r.audio.is_file() for r in kept)
    dropped = [json.loads(line) for line in dropped_beside(out).read_text().splitlines()]
    assert len(dropped) == report.rows - report.kept == 8
    assert [list(d["reasons"]) for d in dropped[:4]] == [["missing"], ["unreadable"], ["too-short"], ["silent"]]
    assert (dropped[0]["row"], dropped[0]["record"]["audio_id"]) == (3, "gone.wav")
    again = Checker([out], limits=Limits(tokens=30), count_tokens=words).run()
    assert again.kept == again.rows == 7


def test_clips_beside_a_cleaned_manifest_stay_relative(manifest: Path) -> None:
    out = manifest.with_name("clean.json")
    Checker([manifest]).run(out)
    assert json.loads(out.read_text())[0]["audio_id"] == "good.wav"


def test_kinds_to_drop_are_a_choice(manifest: Path) -> None:
    assert Checker([manifest], drop=["wrong-rate"]).run().kept == 14
    assert Checker([manifest], drop=[]).run().kept == 15


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        pytest.param(row("a.wav"), row("a.wav"), id="the same file"),
        pytest.param(row("a.wav"), row("copy_of_a.wav"), id="the same samples"),
        pytest.param(row("a.wav", group="g1"), row("b.wav", group="g1"), id="the same group"),
        pytest.param(
            row("Y0123456789a_30.wav", dataset="AudioCaps"), row("0123456789a.wav", dataset="vggsound"), id="YouTube"
        ),
        pytest.param(row("1-977-A-3.wav", dataset="esc50"), row("977.wav", dataset="fsd50k"), id="Freesound"),
    ],
)
def test_a_recording_on_both_sides(tmp_path: Path, train: dict[str, Any], held_out: dict[str, Any]) -> None:
    sound(tmp_path / "copy_of_a.wav", seed=0)
    names = ["a.wav", "b.wav", "c.wav", "Y0123456789a_30.wav", "0123456789a.wav", "1-977-A-3.wav", "977.wav"]
    for seed, name in enumerate(names):
        sound(tmp_path / name, seed=seed)
    first = write(tmp_path / "train.json", [row("c.wav"), train])
    second = write(tmp_path / "test.json", [held_out])
    report = Checker([first], held_out=[second]).run()
    assert (found(report), report.rows, report.kept) == ({"both-sides": 1}, 2, 1)
    marked = write(tmp_path / "both.json", [row("c.wav"), train, held_out | {"split": "test"}])
    assert Checker([marked], drop=["both-sides"]).run().kept == 2
    assert Checker([first]).run().kept == 2


def test_a_recording_in_two_folds(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", seed=0)
    sound(tmp_path / "b.wav", seed=1)
    rows = [row("a.wav", fold=1, group="g"), row("b.wav", fold=2, group="g"), row("a.wav", fold=1)]
    report = Checker([write(tmp_path / "rows.json", rows)]).run()
    assert found(report) == {"both-sides": 2}
    assert report.examples["both-sides"][0].detail == "g is in fold 2 as well"


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("Yabcdefghij.wav", "youtube:Yabcdefghij"),
        ("Yabcdefghijk.wav", "youtube:abcdefghijk"),
        ("/x/Yabcdefghijk_10.000_20.000.wav", "youtube:abcdefghijk"),
        ("Y-bcdefgh_j_30.flac", "youtube:Y-bcdefgh_j"),
        ("dog.wav", None),
    ],
)
def test_youtube_ids(name: str, recording: str | None) -> None:
    assert origin(row(name, dataset="AudioSet-strong")) == recording
    assert origin(row(name, dataset="mine")) is None


def test_paths_are_changed_at_whole_components(tmp_path: Path) -> None:
    remap = Remap(tmp_path, (("/far/audio/", "/near"), ("/far", "away")))
    manifest = Path("/m/rows.json")
    assert remap.file("/far/audio/x/a.wav", manifest) == Path("/near/x/a.wav")
    assert remap.file("/far/audiobooks/a.wav", manifest) == tmp_path / "away/audiobooks/a.wav"
    assert remap.file("a.wav", manifest) == tmp_path / "a.wav"
    assert Remap().file("a.wav", manifest) == Path("/m/a.wav")
    assert remap.file("empty", manifest) is None


def test_the_command(runner: CliRunner, manifest: Path, tmp_path: Path) -> None:
    words = ["prepare", "check", str(manifest), "--workers", "1"]
    result = runner.invoke(cli, words)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["found", "rows", "dropped", "the", "first"]
    assert lines[-2:] == [
        "15 rows, 9 clips; 7 rows kept",
        "the original would have trained on a constant spectrogram in 3 rows",
    ]
    out = tmp_path / "clean.json"
    result = runner.invoke(cli, [*words, "--json", "--out", str(out)])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["kept"] == 7
    assert result.stderr == f"wrote 7 rows to {out}, 8 to {tmp_path / 'clean.dropped.jsonl'}\n"


def test_the_command_on_another_machines_paths(runner: CliRunner, tmp_path: Path) -> None:
    sound(tmp_path / "here" / "a.wav")
    manifest = write(tmp_path / "rows.json", [row("/cluster/a.wav")])
    words = ["prepare", "check", str(manifest), "--workers", "1"]
    assert runner.invoke(cli, words).exit_code == 1
    result = runner.invoke(cli, [*words, "--map", f"/cluster={tmp_path / 'here'}"])
    assert (result.exit_code, result.stdout) == (0, "1 rows, 1 clips; 1 rows kept\n")
    assert "is not OLD=NEW" in runner.invoke(cli, [*words, "--map", "x"]).stderr
    assert "'dead' is none of malformed" in runner.invoke(cli, [*words, "--drop", "dead"]).stderr


def test_half_a_surrogate_pair_is_a_malformed_row_and_the_others_are_kept(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    names = ["a.wav", "a.wav", "\ud83d.wav", "a\0.wav", "a.wav"]
    outputs = ["A dog.", "A \ud83d dog.", "A dog.", "A dog.", "A \U0001f415."]
    rows = [row(name, output=output) for name, output in zip(names, outputs, strict=True)]
    out = tmp_path / "clean.json"
    report = Checker([write(tmp_path / "rows.json", rows)]).run(out)
    assert (found(report), report.kept) == ({"malformed": 3}, 2)
    assert [r.output for r in read(out)] == ["A dog.", "A \U0001f415."]
    dropped = [json.loads(line) for line in dropped_beside(out).read_text().splitlines()]
    assert [(d["row"], d["record"]) for d in dropped] == [(n, rows[n - 1]) for n in (2, 3, 4)]
    assert (
        "row 2: 'output' holds half of a surrogate pair (\\ud83d) at character 3"
        in report.examples["malformed"][0].detail
    )
    assert "not a name that a file can have" in report.examples["malformed"][1].detail


def test_a_decoder_that_fails_in_an_unexpected_way_costs_one_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gama import audio

    load = audio.load

    def failing(path: Path, **options: Any) -> Any:
        if Path(path).name == "b.wav":
            raise IndexError("list index out of range")
        return load(path, **options)

    monkeypatch.setattr(audio, "load", failing)
    for seed, name in enumerate(["a.wav", "b.wav"]):
        sound(tmp_path / name, seed=seed)
    report = Checker([write(tmp_path / "rows.json", [row("a.wav"), row("b.wav")])]).run()
    assert (found(report), report.kept) == ({"unreadable": 1}, 1)
    assert "b.wav: IndexError: list index out of range" in report.examples["unreadable"][0].detail


def test_a_name_that_is_too_long_is_a_clip_that_cannot_be_read(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    report = Checker([write(tmp_path / "rows.json", [row("a" * 5000), row("a.wav")])]).run()
    assert (found(report), report.kept) == ({"unreadable": 1}, 1)
    assert report.examples["unreadable"][0].detail.endswith(": File name too long")
