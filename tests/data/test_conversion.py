"""``gama prepare audio``: the same sound at 16 kHz mono, once, and the originals as they were."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from gama import audio
from gama.data import conversion
from gama.data.conversion import convert
from gama.data.manifest import read
from gama.data.remap import Remap
from gama.errors import GamaError
from gama_cli.main import cli


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "originals"
    (root / "deep" / "er").mkdir(parents=True)
    soundfile.write(root / "a.wav", rng.normal(0, 0.1, (22050, 2)), 44100)
    soundfile.write(root / "a.flac", rng.normal(0, 0.1, 8000), 16000)
    soundfile.write(root / "deep" / "er" / "b.WAV", rng.normal(0, 0.1, 4000), 8000)
    (root / "notes.txt").write_text("no sound")
    return root


def names(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_a_folder(folder: Path, tmp_path: Path, kind: conversion.Format) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.*")}
    out = tmp_path / "out"
    result = convert([folder], out, kind=kind)
    assert (result.done, result.fresh, result.failed, result.manifests) == (3, 3, (), ())
    assert names(out) == [f"audio/a.flac.{kind}", f"audio/a.wav.{kind}", f"audio/deep/er/b.{kind}"]
    for original, new in [("a.wav", f"a.wav.{kind}"), ("deep/er/b.WAV", f"deep/er/b.{kind}")]:
        info = soundfile.info(out / "audio" / new)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        expected = audio.load(folder / original).samples
        assert np.abs(audio.load(out / "audio" / new).samples - expected).max() <= 2**-15
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.*")}


def test_what_is_done_stays_and_what_changed_is_done_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert([folder], out)
    (out / "audio" / "a.wav.flac").unlink()
    soundfile.write(folder / "deep" / "er" / "b.WAV", np.ones(800) / 2, 8000)
    result = convert([folder], out)
    assert (result.done, result.fresh) == (3, 2)
    assert len(audio.load(out / "audio" / "deep" / "er" / "b.flac").samples) == 1600
    assert convert([folder], out).fresh == 0


def test_a_manifest_is_written_again(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.wav").write_bytes(b"RIFF")
    named = ["a.wav", "", "gone.wav", "broken.wav", "deep/er/b.WAV", "a.wav"]
    ids = [f"/far/{name}" if name else "empty" for name in named]
    rows = [{"audio_id": name, "instruction": "q", "output": name, "extra": [1]} for name in ids]
    manifest = tmp_path / "rows.json"
    manifest.write_text(json.dumps(rows))
    out = tmp_path / "out"
    result = convert([manifest], out, remap=Remap(None, (("/far", str(folder)),)))
    assert [path.name for path, _ in result.failed] == ["gone.wav", "broken.wav"]
    assert result.manifests == ((out / "rows.json", 4, 2),)
    written = json.loads((out / "rows.json").read_text())
    assert [row["audio_id"] for row in written] == ["audio/a.flac", "empty", "audio/deep/er/b.flac", "audio/a.flac"]
    assert written[0] == rows[0] | {"audio_id": "audio/a.flac"}
    assert all(row.audio is None or row.audio.is_file() for row in read(out / "rows.json"))


def test_samples_above_full_scale_are_scaled_and_not_cut_off(runner: CliRunner, folder: Path, tmp_path: Path) -> None:
    """A float sine at 8 times full scale stays a sine; clipped to 16 bits it would be a square wave."""
    sine = np.sin(np.arange(16000) * 0.1)
    soundfile.write(folder / "loud.wav", 8 * sine, 16000, subtype="FLOAT")
    soundfile.write(folder / "full.wav", np.sin(np.arange(8000) * 0.1), 16000, subtype="FLOAT")
    out = tmp_path / "out"
    result = runner.invoke(cli, ["prepare", "audio", str(folder), "--out", str(out), "--workers", "1"])
    assert result.exit_code == 0
    loud = audio.load(out / "audio" / "loud.flac").samples
    assert np.abs(loud - sine / np.abs(sine).max()).max() < 2**-14
    assert np.mean(np.abs(loud) > 0.999) < 0.05  # of a square wave: nearly all
    peak = 8 * np.abs(sine).max()
    assert (
        f"warning: {folder / 'loud.wav'}: its samples reach {peak:.4g} times full scale; scaled down by"
        in result.stderr
    )
    assert "warning: 1 clip(s) lay above full scale and were scaled down, the loudest by 18.06 dB" in result.stderr
    assert np.abs(audio.load(out / "audio" / "full.flac").samples).max() > 0.999


def test_a_folder_of_links_keeps_their_names(tmp_path: Path) -> None:
    blobs, data = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc" / "data"
    blobs.mkdir(parents=True)
    data.mkdir(parents=True)
    soundfile.write(blobs / "17bddb", np.zeros(800), 16000, format="FLAC")
    for name in ("a.flac", "b.flac"):
        (data / name).symlink_to("../../../blobs/17bddb")
    (data / "gone.flac").symlink_to("nowhere")
    out = tmp_path / "out"
    result = convert([data.parent], out)
    assert names(out) == ["audio/data/a.flac", "audio/data/b.flac"]
    assert result.failed == ((data / "gone.flac", f"{data / 'gone.flac'}: no such file"),)
    manifest = tmp_path / "rows.json"
    manifest.write_text(
        json.dumps([{"audio_id": f"{data}/{n}", "instruction": "q", "output": n} for n in ("a.flac", "b.flac")])
    )
    convert([manifest], tmp_path / "again")
    written = json.loads((tmp_path / "again" / "rows.json").read_text())
    assert [row["audio_id"] for row in written] == ["audio/a.flac", "audio/b.flac"]


def test_a_clip_above_a_linked_folder_is_found(tmp_path: Path) -> None:
    """The folder above a link is that of what the link points to."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep", target_is_directory=True)
    soundfile.write(tmp_path / "real" / "a.wav", np.zeros(800), 16000)
    (tmp_path / "link" / "rows.json").write_text('[{"audio_id": "../a.wav", "instruction": "q", "output": "a"}]')
    result = convert([tmp_path / "link" / "rows.json"], tmp_path / "out")
    assert (result.done, result.failed) == (1, ())


def test_malformed_rows_are_left_out_and_the_others_converted(runner: CliRunner, folder: Path, tmp_path: Path) -> None:
    manifest, out = tmp_path / "rows.json", tmp_path / "out"
    good = {"audio_id": "originals/a.wav", "instruction": "q", "output": "a"}
    manifest.write_text(json.dumps([good, good | {"output": "\ud83d"}, 7, good | {"audio_id": "a\0b.wav"}]))
    result = runner.invoke(cli, ["prepare", "audio", str(manifest), "--out", str(out), "--workers", "1"])
    assert result.exit_code == 1
    for number in (2, 3, 4):
        assert f"{manifest}: row {number}" in result.stderr
    assert "3 malformed row(s) were left out" in result.stderr
    assert [r["audio_id"] for r in json.loads((out / "rows.json").read_text())] == ["audio/a.flac"]


@pytest.mark.parametrize("error", [IndexError("list index out of range"), OSError(5, "Input/output error")])
def test_an_unexpected_failure_of_a_decoder_costs_one_clip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    load = audio.load

    def failing(path: Path, **options: object) -> audio.Waveform:
        if path.name == "a.flac":
            raise error
        return load(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(audio, "load", failing)
    result = convert([folder], tmp_path / "out")
    assert result.done == 2
    text = "IndexError: list index out of range" if isinstance(error, IndexError) else "Input/output error"
    assert text in result.failed[0][1] and result.failed[0][1].startswith(f"{folder / 'a.flac'}: ")


def test_a_full_disk_names_the_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "encoded", full)
    with pytest.raises(GamaError, match=r"out/audio/a\.flac\.flac: cannot be written: no space is left on the disk"):
        convert([folder], tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_no_two_clips_share_a_file(tmp_path: Path) -> None:
    clips = [tmp_path / name for name in ("a.wav", "a.flac", "a.wav.flac", "b.wav")]
    jobs = conversion.planned(clips, tmp_path / "out", "flac")
    assert len({job.target for job in jobs}) == 4
    assert jobs[3].target == tmp_path / "out" / "b.flac"


def test_long_clips_can_be_cut(folder: Path, tmp_path: Path) -> None:
    convert([folder], tmp_path / "out", max_seconds=0.1)
    assert len(audio.load(tmp_path / "out" / "audio" / "a.wav.flac").samples) == 1600


def test_originals_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.flac", np.zeros(800), 16000)
    content = (tmp_path / "audio" / "a.flac").read_bytes()
    with pytest.raises(GamaError, match=r"a\.flac is an original"):
        convert([tmp_path / "audio"], tmp_path)
    assert (tmp_path / "audio" / "a.flac").read_bytes() == content
    with pytest.raises(GamaError, match="gone: no such folder or manifest"):
        convert([tmp_path / "gone"], tmp_path / "out")


def test_a_stopped_run_leaves_no_half_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial: list[bool] = []

    def stop(file: Path, **_: object) -> None:
        partial.append(Path(file).is_file())
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "utime", stop)
    with pytest.raises(KeyboardInterrupt):
        convert([folder], tmp_path / "out")
    assert partial == [True]
    assert names(tmp_path / "out") == []


def test_the_command_with_two_processes(runner: CliRunner, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["prepare", "audio", str(folder), "--out", str(out), "--workers", "2"]
    result = runner.invoke(cli, words)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"3 clips in {out / 'audio'}, 3 of them converted now\n"
    (folder / "broken.wav").write_bytes(b"RIFF")
    result = runner.invoke(cli, words[:-1] + ["1"])
    assert result.exit_code == 1
    assert result.stderr.startswith("warning: ") and "broken.wav" in result.stderr
