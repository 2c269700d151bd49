"""Many questions about one clip: the answers of asking alone, and the audio read once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gama
from gama.audio import Waveform
from gama.checkpoints.bundled import model_folder
from gama.inference.asking import Asker, Prompt
from gama.inference.sharing import sharing
from gama.instant.engine import Instant, has_instant_graphs

QUESTIONS = ["what happened?", "is there a dog in it?", "describe the audio", "is there a dog in it, or a cat?"]
SOUND = 9
SHORT = {"max_new_tokens": 8}


def waveform(seconds: float, seed: int = 0) -> Waveform:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return Waveform(samples.astype(np.float32), f"clip{seed}.wav", 16_000, 1)


@pytest.fixture(scope="module", params=["torch", "onnx"])
def mini(request: pytest.FixtureRequest) -> Asker:
    if request.param == "onnx" and not has_instant_graphs(model_folder()):
        pytest.skip("the packaged model has no instant graphs")
    return gama.load(runtime=request.param)


@pytest.fixture
def audio_read(mini: Asker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many soft tokens each run of the language model was given."""
    counts: list[int] = []
    if isinstance(mini, Instant):
        read = mini.language.read

        def spied(ids: Any, *rest: Any) -> Any:
            counts.append(list(ids).count(mini.audio_token_id))
            return read(ids, *rest)

        monkeypatch.setattr(mini.language, "read", spied)
    else:
        embed = mini.model.embed  # type: ignore[attr-defined]

        def watched(ids: Any, *rest: Any) -> Any:
            counts.append(int((ids == mini.audio_token_id).sum()))
            return embed(ids, *rest)

        monkeypatch.setattr(mini.model, "embed", watched)  # type: ignore[attr-defined]
    return counts


def facts(answers: list[Any]) -> list[Any]:
    return [[(h.start, h.end, h.text, h.finish, h.prompt_tokens, h.new_tokens) for h in a.heard] for a in answers]


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "seed": 5}, {"repetition_penalty": 1.5}])
def test_asked_many_is_asked_alone(mini: Asker, options: dict[str, Any]) -> None:
    clip = waveform(2.0)
    alone = [mini.ask(clip, question, **SHORT, **options) for question in QUESTIONS]
    for size in (2, 4, 8):
        many = mini.ask_many(clip, QUESTIONS, batch_size=size, **SHORT, **options)
        assert many == alone and facts(many) == facts(alone)


def test_the_audio_is_read_once(mini: Asker, audio_read: list[int]) -> None:
    mini.ask_many(waveform(2.0), QUESTIONS, **SHORT)
    assert sum(audio_read) == mini.num_audio_tokens
    audio_read.clear()
    clips = [waveform(2.0), waveform(1.0, 1)] * 2
    answers = mini.batch(clips, QUESTIONS, **SHORT)
    assert sum(audio_read) == 2 * mini.num_audio_tokens
    assert answers == [mini.ask(c, q, **SHORT) for c, q in zip(clips, QUESTIONS, strict=True)]


def test_windows_and_several_clips(mini: Asker, audio_read: list[int]) -> None:
    long, pair = waveform(12.0), [waveform(1.0, 1), waveform(2.0, 2)]
    for clips, windows in ((long, 2), (pair, 2)):
        audio_read.clear()
        many = mini.ask_many(clips, QUESTIONS[:3], **SHORT)
        assert sum(audio_read) == windows * mini.num_audio_tokens
        assert many == [mini.ask(clips, question, **SHORT) for question in QUESTIONS[:3]]


def test_without_a_clip_and_the_same_question_twice(mini: Asker) -> None:
    twice = [QUESTIONS[0]] * 2
    assert mini.ask_many(None, twice, **SHORT) == [mini.ask(None, QUESTIONS[0], **SHORT)] * 2
    clip = waveform(1.0)
    assert mini.ask_many(clip, twice, **SHORT) == [mini.ask(clip, QUESTIONS[0], **SHORT)] * 2


# --- what is shared


def prompt(ids: list[int], *sounds: int) -> Prompt:
    return Prompt(tuple(ids), tuple(waveform(0.1, sound) for sound in sounds))


CLIP = [SOUND] * 20


def test_no_two_prompts_about_one_sound_share_nothing() -> None:
    assert sharing([prompt([*CLIP, 1, 2], 0), prompt([*CLIP, 1, 3], 1)], SOUND, 20) is None


def test_beginnings_end_before_the_first_difference_and_leave_something_to_read() -> None:
    found = sharing([prompt([*CLIP, 1, 2, 3], 0), prompt([*CLIP, 1], 1), prompt([*CLIP, 1, 2, 4], 0)], SOUND, 20)
    assert found is not None and (found.length, found.leaders, found.beginning) == (20, (0, 1), (0, 1, 0))
    found = sharing([prompt([*CLIP, 1, 2, 3], 0), prompt([*CLIP, 1, 2, 4, 5], 0)], SOUND, 20)
    assert found is not None and found.length == 22


def test_beginnings_end_within_no_clip() -> None:
    words = list(range(100, 130))
    late = [prompt([*words, *CLIP, 1], 0), prompt([*words, *CLIP, 2], 0)]
    early = [prompt([*words[:25], *CLIP, 1, 2], 1), prompt([*words[:25], *CLIP, 1, 3], 1)]
    found = sharing([*late, *early], SOUND, 20)
    assert found is not None and found.length == 25
    assert sharing([prompt([1, *CLIP, 2], 0), prompt([3, *CLIP, 2], 0)], SOUND, 20) is None
