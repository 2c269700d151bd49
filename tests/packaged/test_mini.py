"""The packaged model: small enough, and true about fresh scenes and recordings that taught it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gama.audio import Waveform, load
from gama.checkpoints.bundled import model_folder
from gama.data.scenes.answers import named
from gama.data.scenes.classes import CLASSES, ESC10
from gama.data.scenes.compose import compose_exact
from gama.inference.engine import Gama
from gama.inference.engine import load as load_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "dog_then_bells.flac"
SEED = 777_000  # no scene of the training data has a seed near it


@pytest.fixture(scope="module")
def mini() -> Gama:
    return load_model()


def scene(label: str, index: int) -> Waveform:
    """One sound alone, from a seed of its own."""
    rng = np.random.default_rng([SEED, index])
    samples, _ = compose_exact(rng, [(label, 1.0, 2)], background=None, duration=8.0)
    return Waveform(samples, f"{label}-{index}", 16_000, 1)


def share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)


def test_the_package_stays_small() -> None:
    assert sum(file.stat().st_size for file in model_folder().iterdir()) <= 20 * 2**20


def test_the_example_of_the_readme(mini: Gama) -> None:
    answer = mini.ask(EXAMPLE, "what happened?")
    assert {"dog", "church_bells"} <= set(named(answer)), answer


@pytest.mark.parametrize("question", ["what sound is this?", "what happened?", "describe the audio"])
def test_names_unseen_generated_sounds(mini: Gama, question: str) -> None:
    clips = [scene(c.label, i) for i, c in enumerate(CLASSES)]
    answers = mini.batch(clips, question)
    right = [c.label in named(answer) for c, answer in zip(CLASSES, answers, strict=True)]
    wrong = [(c.label, str(a)) for c, a, ok in zip(CLASSES, answers, right, strict=True) if not ok]
    assert share(right) >= 0.7, wrong


def test_says_yes_and_no(mini: Gama) -> None:
    present = [c for c in CLASSES if c.unit is not None][::2]
    clips = [scene(c.label, 100 + i) for i, c in enumerate(present)]
    yes = mini.batch(clips, [f"is there {c.phrase}?" for c in present])
    no = mini.batch(clips, [f"is there {present[i - 5].phrase}?" for i in range(len(present))])
    right = [a.lower().startswith("yes") for a in yes] + [a.lower().startswith("no") for a in no]
    assert share(right) >= 0.75, [*map(str, yes), *map(str, no)]


def test_silence_is_said(mini: Gama) -> None:
    answers = mini.batch([np.zeros(16_000 * n, dtype=np.float32) for n in (3, 8)], "what happened?")
    assert all("silent" in a or "nothing" in a for a in answers), [*map(str, answers)]


def test_the_answer_follows_the_sound_not_the_question(mini: Gama) -> None:
    answers = {str(mini.ask(scene(label, 300 + i), "what happened?")) for i, label in enumerate(ESC10)}
    assert len(answers) >= 6, answers


def test_names_real_recordings(mini: Gama, shared: Path) -> None:
    """Real ESC-10 clips by name, which taught these weights; docs/gama-mini.md has the figures on others."""
    rows = [json.loads(line) for line in (shared / "audio" / "clips.jsonl").read_text().splitlines()]
    chosen = [r for r in rows if r["fold"] == 4 and r["label"] in ESC10][::2]
    clips = [load(shared / "audio" / r["file"]) for r in chosen]
    answers = mini.batch(clips, "what sound is this?")
    right = [r["label"] in named(a) for r, a in zip(chosen, answers, strict=True)]
    assert len(chosen) >= 30
    assert share(right) >= 0.5
