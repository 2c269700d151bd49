"""Procedural sounds, composed scenes and their truth, scenes on disk, real recordings mixed in."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gama.audio.waveform import SILENCE_DB
from gama.data import manifest as manifests
from gama.data import real
from gama.data.scenes import prepare
from gama.data.scenes.classes import BY_LABEL, CLASSES
from gama.data.scenes.compose import BACKGROUNDS, RealTakes, compose, compose_exact
from gama.data.scenes.prepare import write_scenes
from gama.data.scenes.scene import Scene
from gama.data.scenes.synth import GENERATORS, TEXTURES
from gama.data.scenes.synth_blocks import RATE, Countable, Samples, band, harmonics, noise
from gama.data.scenes.takes import active_span, looped, resampled, single_sounds
from gama.errors import AudioError, GamaError, LockedError, ManifestError
from gama.locks import locked

LABELS = [c.label for c in CLASSES]


def burst(seconds: float, pitch: float = 800.0) -> Samples:
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * pitch * t) * np.hanning(len(t))).astype(np.float32)


def train_of(count: int, seconds: float, gap: float, pitch: float = 800.0) -> Samples:
    silence = np.zeros(int(gap * RATE), np.float32)
    return np.concatenate([x for _ in range(count) for x in (burst(seconds, pitch), silence)])


def onsets(samples: Samples, *, quiet_ms: int = 40) -> int:
    """How often the energy rises from below -35 dB, independently of the package's own segmentation."""
    power = np.convolve(samples**2, np.ones(80) / 80, "same")
    loud = np.flatnonzero(power > power.max() * 10**-3.5)
    return 1 + int(np.sum(np.diff(loud) > quiet_ms * RATE / 1000))


# generators


def test_every_class_has_a_generator_of_its_kind() -> None:
    assert set(GENERATORS) == set(LABELS)
    for label, generator in GENERATORS.items():
        assert isinstance(generator, Countable) == (BY_LABEL[label].unit is not None), label
    assert set(BACKGROUNDS) <= set(TEXTURES)


@pytest.mark.parametrize("label", LABELS)
def test_generator_gives_sound(label: str) -> None:
    for seed, count in enumerate((1, 2, 5)):
        take = GENERATORS[label](np.random.default_rng(seed), 4.0, count)
        assert take.samples.dtype == np.float32
        assert np.isfinite(take.samples).all()
        assert 0.99 < np.abs(take.samples).max() <= 1.0 + 1e-6
        assert len(take.samples) <= 4 * RATE
        assert take.count == (count if BY_LABEL[label].unit else 1) == len(take.spans)
        again = GENERATORS[label](np.random.default_rng(seed), 4.0, count)
        np.testing.assert_array_equal(take.samples, again.samples)


@pytest.mark.parametrize("label", ["dog", "door_knock", "alarm", "clock_tick", "owl", "car_horn"])
def test_single_sounds_can_be_counted_by_ear(label: str) -> None:
    for seed in range(15):
        count = 1 + seed % 5
        take = GENERATORS[label](np.random.default_rng([7, seed]), 8.0, count)
        assert onsets(take.samples) == count, (label, seed)


@pytest.mark.parametrize("label", [c.label for c in CLASSES if c.unit])
def test_spans_lie_apart(label: str) -> None:
    generator = GENERATORS[label]
    assert isinstance(generator, Countable)
    take = generator(np.random.default_rng(3), 9.9, min(4, generator.fits(9.9)))
    starts = [s for s, _ in take.spans]
    assert min(np.diff(starts)) > 0.15
    assert all(0 <= s < e <= 9.9 for s, e in take.spans)


def test_blocks() -> None:
    rng = np.random.default_rng(0)
    hiss = noise(rng, RATE, band(1000, 2000, 8))
    power = np.abs(np.fft.rfft(hiss)) ** 2
    assert power[900:2200].sum() > 0.9 * power.sum()
    assert np.sqrt(np.mean(hiss**2)) == pytest.approx(1, abs=1e-3)
    voice = np.abs(np.fft.rfft(harmonics(rng, np.full(RATE, 200.0, np.float32), decay=1.0)))
    assert set(np.argsort(voice)[-3:].tolist()) == {200, 400, 600}


# composing


def test_compose_is_deterministic_and_in_range() -> None:
    for seed in range(40):
        samples, scene = compose(np.random.default_rng(seed))
        again, same = compose(np.random.default_rng(seed))
        np.testing.assert_array_equal(samples, again)
        assert scene == same
        assert samples.shape == (160_000,) and samples.dtype == np.float32
        assert np.abs(samples).max() <= 1
        assert not samples[round(scene.duration * RATE) :].any()
        starts = [e.start for e in scene.foreground]
        assert starts == sorted(starts)
        assert all(0 <= e.start < e.end <= scene.duration + 1e-6 for e in scene.events)
        assert [e.role for e in scene.events[:-1]] == ["event"] * (len(scene.events) - 1)
        assert Scene.from_row(json.loads(json.dumps(scene.to_row()))) == scene


def test_truth_is_where_the_energy_is() -> None:
    checked = 0
    for seed in range(150):
        samples, scene = compose(np.random.default_rng([11, seed]))
        if len(scene.events) != 1 or scene.noise:
            continue
        event = scene.events[0]
        power = np.convolve(samples**2, np.ones(80) / 80, "same")
        # 3 dB inside and outside of the threshold the truth is measured with
        wide = np.flatnonzero(power > power.max() * 10**-3.3) / RATE
        tight = np.flatnonzero(power > power.max() * 10**-2.7) / RATE
        assert wide[0] - 0.02 <= event.start <= tight[0] + 0.02, event
        assert tight[-1] - 0.02 <= event.end <= wide[-1] + 0.02, event
        part = samples[int(event.start * RATE) : int(event.end * RATE)]
        assert event.level_db == pytest.approx(10 * np.log10(np.mean(part**2)), abs=0.1)
        checked += 1
    assert checked > 20


def test_scenes_are_as_varied_as_promised() -> None:
    scenes = [compose(np.random.default_rng([13, seed]))[1] for seed in range(300)]
    share = [np.mean([len(s.foreground) == k for s in scenes]) for k in range(4)]
    np.testing.assert_allclose(share, (0.05, 0.52, 0.30, 0.13), atol=0.08)
    events = [e for s in scenes for e in s.foreground]
    counts = np.bincount([e.count for e in events if BY_LABEL[e.label].unit], minlength=6)[1:6]
    assert counts.min() > 0.5 * counts.max()
    assert {e.label for e in events} == set(LABELS)
    pairs = [sorted(e.level_db for e in s.foreground) for s in scenes if len(s.foreground) == 2]
    assert np.mean([b - a >= 4 for a, b in pairs]) > 0.5
    following = [(a, b) for s in scenes for a, b in zip(s.foreground, s.foreground[1:], strict=False)]
    gaps = np.array([b.start - a.end for a, b in following])
    assert np.mean(gaps > 0.27) > 0.8
    assert 0.03 < np.mean(gaps < 0) < 0.2
    assert any(s.silent for s in scenes) and any(s.noise and not s.events for s in scenes)
    assert all(s.background is None or s.background.label in BACKGROUNDS for s in scenes)


def test_a_silent_scene_is_silent_to_the_engine() -> None:
    made = [compose(np.random.default_rng([14, seed])) for seed in range(300)]
    heard = [20 * np.log10(max(np.abs(samples).max(), 1e-9)) for samples, scene in made if scene.silent]
    assert max(heard) < SILENCE_DB
    assert any(level > -150 for level in heard)  # not all of them are digital zero


def test_compose_exact() -> None:
    wanted = [("glass_breaking", 6.0, 1), ("dog", 1.0, 3)]
    samples, scene = compose_exact(np.random.default_rng(0), wanted, background="rain", duration=9.0)
    assert [(e.label, e.start, e.count) for e in scene.foreground] == [("dog", 1.0, 3), ("glass_breaking", 6.0, 1)]
    assert scene.background is not None and scene.background.label == "rain"
    assert scene.background.level_db < min(e.level_db for e in scene.foreground) - 10
    assert not samples[9 * RATE :].any()
    with pytest.raises(GamaError, match="unknown class 'wolf'"):
        compose_exact(np.random.default_rng(0), [("wolf", 1.0, 1)])
    with pytest.raises(GamaError, match="within the clip"):
        compose_exact(np.random.default_rng(0), [("dog", 12.0, 1)])


def test_procedural_labels_can_be_restricted() -> None:
    labels = {
        e.label for s in range(30) for e in compose(np.random.default_rng(s), procedural=("dog", "cat"))[1].events
    }
    assert labels == {"dog", "cat"}
    with pytest.raises(GamaError, match="no class"):
        compose(np.random.default_rng(0), procedural=())


# real recordings


def test_active_span_and_single_sounds() -> None:
    x = np.concatenate([np.zeros(RATE, np.float32), train_of(3, 0.2, 0.3)])
    start, end = active_span(x)
    assert start == pytest.approx(1.0, abs=0.03)
    assert end == pytest.approx(1.0 + 3 * 0.5 - 0.3, abs=0.03)
    assert active_span(np.zeros(RATE, np.float32)) == (0.0, 0.0)
    spans = single_sounds(x, "dog")
    assert [round(a / RATE, 1) for a, _ in spans] == [1.0, 1.5, 2.0]
    noisy = x + 0.1 * np.random.default_rng(0).standard_normal(len(x)).astype(np.float32)
    assert single_sounds(noisy, "dog") == ()
    assert single_sounds(x, "rain") == ()


def test_looped_and_resampled() -> None:
    x = burst(1.0)
    assert len(looped(np.random.default_rng(0), x, 3 * RATE)) == 3 * RATE
    assert len(looped(np.random.default_rng(0), x, RATE // 2)) == RATE // 2
    faster = np.abs(np.fft.rfft(resampled(x, 1.25), RATE))
    assert int(faster.argmax()) == pytest.approx(1000, abs=3)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three barks (fold 1), a steady tone that cannot be counted (fold 2), rain without a fold; and their manifest."""
    rng = np.random.default_rng(5)
    clips = {
        "barks.wav": ("dog", train_of(3, 0.2, 0.4), 1),
        "cries.wav": ("crying_baby", burst(4.0, 500.0), 2),
        "rain.wav": ("rain", (0.1 * rng.standard_normal(2 * RATE)).astype(np.float32), None),
    }
    rows = []
    for name, (label, samples, fold) in clips.items():
        soundfile.write(tmp_path / name, samples, RATE, subtype="PCM_16")
        event = {"label": label, "start": 0.0, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 500.0}
        row = {"audio_id": name, "instruction": "What?", "output": "A.", "duration": 1.0, "events": [event]}
        rows.append({**row, "fold": fold})
    (tmp_path / "real.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path / "real.json"


def test_real_takes(recordings: Path) -> None:
    takes = RealTakes.from_manifest(recordings)
    assert takes.labels == ("crying_baby", "dog", "rain")
    assert [len(r.singles) for r in takes.recordings("dog")] == [3]
    assert takes.recordings("dog")[0].complete
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        take, source = takes.cut(rng, "dog", 5.0, 1 + seed % 4)
        assert source == "barks.wav"
        assert np.isfinite(take.samples).all() and np.abs(take.samples).max() <= 1 + 1e-6
        if take.count:
            assert take.count == len(take.spans) == 1 + seed % 4
            assert onsets(take.samples, quiet_ms=60) == take.count
        seen.add(take.count)
    assert seen == {0, 1, 2, 3, 4}
    assert takes.cut(np.random.default_rng(0), "crying_baby", 5.0, 2)[0].count == 0
    texture = takes.cut(np.random.default_rng(0), "rain", 7.0, 1)[0]
    assert (texture.count, len(texture.samples)) == (1, 7 * RATE)


def test_folds_choose_recordings(recordings: Path) -> None:
    assert RealTakes.from_manifest(recordings, folds=(1,)).labels == ("dog", "rain")
    assert RealTakes.from_manifest(recordings, folds=(3,)).labels == ("rain",)
    rows = [row for row in json.loads(recordings.read_text(encoding="utf-8")) if row["fold"]]
    recordings.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(ManifestError, match="no clip of the folds"):
        RealTakes.from_manifest(recordings, folds=(3,))


def test_real_recordings_in_scenes(recordings: Path) -> None:
    takes = RealTakes.from_manifest(recordings)
    events = []
    for seed in range(60):
        samples, scene = compose(np.random.default_rng(seed), takes=takes, real_share=1.0, procedural=("dog",))
        assert np.isfinite(samples).all() and np.abs(samples).max() <= 1
        events += scene.events
    by_label = {label: {e.source for e in events if e.label == label} for label in takes.labels}
    assert by_label == {"dog": {"synthetic", "barks.wav"}, "crying_baby": {"cries.wav"}, "rain": {"rain.wav"}}
    assert {e.count for e in events if e.label == "crying_baby"} == {0}


# scenes on disk


def test_write_scenes(tmp_path: Path, recordings: Path) -> None:
    told: list[int] = []
    one = write_scenes(tmp_path / "one", 6, 3, real=recordings, folds=(1,), questions=2, progress=told.append)
    assert told == [1] * 6
    rows = json.loads(one.read_text(encoding="utf-8"))
    assert len(rows) == 12
    assert set(rows[0]) == {
        "audio_id", "instruction", "input", "output", "dataset", "task", "events", "duration", "noise", "fold", "check",
    }  # fmt: skip
    assert [p.name for p in sorted(one.parent.rglob("*.json*"))] == ["manifest.json"]
    for row, read in zip(rows, manifests.read(one), strict=True):
        assert read.audio is not None and read.scene == Scene.from_row(row)
        info = soundfile.info(read.audio)
        assert (info.samplerate, info.subtype, info.format) == (RATE, "PCM_16", "FLAC")
        assert info.frames == round(row["duration"] * RATE)
    assert {e["source"] for r in rows for e in r["events"]} <= {"synthetic", "barks.wav", "rain.wav"}
    with pytest.raises(ManifestError, match="holds a manifest already"):
        write_scenes(tmp_path / "one", 6, 3)


def test_the_recordings_of_a_scene_are_of_one_fold(
    tmp_path: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "compose", functools.partial(compose, procedural=("dog",)))  # recordings in all others
    written = write_scenes(tmp_path / "both", 24, 4, real=recordings, real_share=1.0)
    fold_of = {"barks.wav": 1, "cries.wav": 2}
    seen = set()
    for row in json.loads(written.read_text(encoding="utf-8")):
        folds = {fold_of[e["source"]] for e in row["events"] if e["source"] in fold_of}
        assert folds == ({row["fold"]} if row["fold"] else set())
        seen.add(row["fold"])
    assert seen == {None, 1, 2}


def test_single_sounds_begin_where_the_truth_says(recordings: Path) -> None:
    takes = RealTakes.from_manifest(recordings)
    counted = 0
    for seed in range(40):
        _, scene = compose(np.random.default_rng(seed), takes=takes)
        for event in scene.events:
            if BY_LABEL[event.label].unit is None or event.count == 0:
                assert event.onsets == ()
                continue
            counted += 1
            assert len(event.onsets) == event.count
            assert list(event.onsets) == sorted(event.onsets)
            assert event.start <= event.onsets[0] < event.start + 0.3 and event.onsets[-1] < event.end
        assert Scene.from_row(json.loads(json.dumps(scene.to_row()))) == scene
    assert counted > 15


def test_scenes_do_not_depend_on_workers_or_count(tmp_path: Path) -> None:
    one = write_scenes(tmp_path / "one", 3, 8)
    two = write_scenes(tmp_path / "two", 4, 8, workers=2)
    rows = json.loads(two.read_text(encoding="utf-8"))
    assert json.loads(one.read_text(encoding="utf-8")) == rows[:3]
    for index in range(3):
        name = f"audio/{index:06d}.flac"
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes()
    other = write_scenes(tmp_path / "other", 3, 9)
    assert json.loads(other.read_text(encoding="utf-8")) != rows[:3]


def test_write_scenes_refuses_a_strange_folder(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"diary\.txt"):
        write_scenes(tmp_path, 1, 0)
    with pytest.raises(GamaError, match="count 0"):
        write_scenes(tmp_path / "new", 0, 0)


# the list of real clips


def test_committed_list() -> None:
    clips = real.real_clips()
    assert len(clips) > 600
    assert len({c.path for c in clips}) == len(clips)
    assert all(c.ours == real.OUR_LABEL[c.label] for c in clips)
    assert all(c.licence and c.attribution and len(c.sha1_pcm) == 40 for c in clips)
    folds: dict[str, set[int | None]] = {}
    for clip in clips:
        folds.setdefault(clip.group, set()).add(clip.fold)
    assert all(len(f) == 1 for f in folds.values())


def test_usable() -> None:
    def row(name: str, label: str, fold: int | None, group: str) -> dict[str, Any]:
        rest = {"licence": "CC0", "attribution": "A", "url": None, "sha1_pcm": "0" * 40, "source": "s", "gain": 1}
        return {"file": name, "label": label, "fold": fold, "group": group, **rest}

    rows = [row("b", "cicadas", None, "x"), row("a", "crickets", 2, "x"), row("c", "zebra", 1, "y")]
    assert [(c.path, c.ours, c.fold, c.url) for c in real.usable(rows)] == [
        ("a", "crickets", 2, ""),
        ("b", "crickets", 2, ""),
    ]


def clip_of(samples: Samples, path: str, label: str) -> real.RealClip:
    pcm = np.round(samples * 32767).astype(np.int16)
    return real.RealClip(path, label, label, 1, "g", "CC0", "A", "u", hashlib.sha1(pcm.tobytes()).hexdigest(), "d")


def test_prepare_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.concatenate([np.zeros(RATE // 2, np.float32), train_of(2, 0.2, 0.4)])
    clips = (clip_of(x, "clips/a.flac", "dog"), clip_of(x, "clips/lost.flac", "cat"))
    monkeypatch.setattr(real, "real_clips", lambda: clips)
    with pytest.raises(GamaError, match="holds none of the 2 listed clips"):
        real.prepare_real(tmp_path, tmp_path / "out")
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "a.flac", np.round(x * 32767).astype(np.int16), RATE, subtype="PCM_16")
    done = real.prepare_real(tmp_path, tmp_path / "out")
    assert (done.used, done.missing) == (1, ("clips/lost.flac",))
    (row,) = manifests.read(done.manifest)
    assert (row.output, row.dataset, row.fold) == ("A dog is barking.", "d", 1)
    assert row.scene is not None and row.audio is not None and row.audio.is_file()
    (event,) = row.scene.events
    assert (event.label, event.count, event.source) == ("dog", 2, "a.flac")
    assert event.start == pytest.approx(0.5, abs=0.03)
    assert RealTakes.from_manifest(done.manifest).labels == ("dog",)
    soundfile.write(tmp_path / "clips" / "a.flac", np.zeros(RATE, np.int16), RATE, subtype="PCM_16")
    with pytest.raises(AudioError, match="another hash"):
        real.prepare_real(tmp_path, tmp_path / "out")


def test_one_process_writes_a_folder_and_another_takes_what_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    out.mkdir()
    with locked(out, "these scenes", inside=True), pytest.raises(LockedError, match="has been writing these scenes"):
        write_scenes(out, 1, 0)
    (out / ".manifest.json.1-0123abcd.tmp").write_text("[")  # of a run that was killed
    manifest = write_scenes(out, 1, 0)
    assert sorted(path.name for path in out.iterdir()) == ["audio", "manifest.json"]
    assert write_scenes(out, 1, 0, shared=True) == manifest
    with pytest.raises(ManifestError, match="holds a manifest already"):
        write_scenes(out, 1, 0)
