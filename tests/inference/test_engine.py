"""``gama.load()`` and what it answers: one answer by every road, and nothing of a clip dropped.

What is asserted here holds for any weights of the packaged architecture.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

import gama
from gama.audio import Waveform
from gama.errors import AudioError, PromptError
from gama.inference import engine
from gama.inference.engine import Answer, Gama
from gama.prompt import SILENCE_NOTE

Float = NDArray[np.float32]
QUESTION = "what happened?"
SHORT = {"max_new_tokens": 8}


def sound(seconds: float, seed: int = 0) -> Float:
    """Noise whose loudness swells."""
    samples = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return (samples * np.linspace(0.01, 0.2, len(samples))).astype(np.float32)


def waveform(seconds: float, seed: int = 0) -> Waveform:
    return Waveform(sound(seconds, seed), f"clip{seed}.wav", 16_000, 1)


@pytest.fixture(scope="module")
def mini() -> Gama:
    return gama.load(runtime="torch")


@pytest.fixture
def fresh() -> Gama:
    """A model that a test may change."""
    return gama.load(runtime="torch")


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each call of the decode loop was given."""
    given: list[dict[str, Any]] = []

    def recording(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        given.append(inputs)
        return plain(model, inputs, *rest)

    plain = engine.decode
    monkeypatch.setattr(engine, "decode", recording)
    return given


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, mini: Gama) -> list[int]:
    """How many windows each run of the audio tower was given; the model has heard nothing yet."""
    counts: list[int] = []

    def counting(values: Tensor) -> Tensor:
        counts.append(len(values))
        return plain(values)

    plain = mini.model.audio_prefix
    monkeypatch.setattr(mini.model, "audio_prefix", counting)
    mini.prefixes.clear()
    return counts


def words(mini: Gama, inputs: dict[str, Any]) -> str:
    """The text of a prompt without its placeholders."""
    ids = [i for i in inputs["input_ids"][0].tolist() if i != mini.processor.audio_token_id]
    return str(mini.processor.tokenizer.decode(ids))


# --- one answer by every road


def test_streamed_batched_and_whole_are_one_answer(mini: Gama) -> None:
    clips = [waveform(seconds, seed) for seed, seconds in enumerate((2.0, 10.24, 0.5))]
    questions = [QUESTION, "is there a dog in this recording, and if there is, when does it bark?", "what sound is it?"]
    single = [mini.ask(clip, question, **SHORT) for clip, question in zip(clips, questions, strict=True)]
    streamed = ["".join(mini.stream(clip, q, **SHORT)) for clip, q in zip(clips, questions, strict=True)]
    assert [str(a) for a in single] == streamed
    for size in (1, 2, 3):
        mini.prefixes.clear()
        batched = mini.batch(clips, questions, batch_size=size, **SHORT)
        assert batched == single
        for one, other in zip(batched, single, strict=True):
            assert [(h.start, h.end, h.finish, h.prompt_tokens, h.new_tokens) for h in one.heard] == [
                (h.start, h.end, h.finish, h.prompt_tokens, h.new_tokens) for h in other.heard
            ]


def test_the_decode_loop_equals_generate(mini: Gama) -> None:
    clip = waveform(3.0)
    conversation = [{"role": "user", "content": [{"type": "audio", "audio": clip}, {"type": "text", "text": QUESTION}]}]
    inputs = mini.processor.apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids = mini.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = mini.processor.tokenizer.decode(ids, skip_special_tokens=True)
    assert mini.ask(clip, QUESTION, max_new_tokens=12) == expected


def test_path_bytes_samples_and_waveform_are_one_clip(mini: Gama, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, sound(1.0), 16_000, subtype="FLOAT")
    expected = mini.ask(waveform(1.0), QUESTION, **SHORT)
    for clip in (path, str(path), path.read_bytes(), sound(1.0)):
        assert mini.ask(clip, QUESTION, **SHORT) == expected
    assert mini.ask(path, QUESTION, **SHORT).clips[0].source == str(path)


def test_a_seed_repeats_a_sampled_answer(mini: Gama) -> None:
    def drawn(seed: int) -> str:
        return mini.ask(waveform(1.0), QUESTION, temperature=5.0, seed=seed, max_new_tokens=20)

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_saved_and_loaded_gives_the_same_answer(mini: Gama, tmp_path: Path) -> None:
    mini.model.save_pretrained(tmp_path)
    mini.processor.save_pretrained(tmp_path)
    again = gama.load(tmp_path)
    assert again.name == str(tmp_path) and mini.name == "mini"
    for question in (QUESTION, "is there a bell?"):
        assert again.ask(waveform(2.0), question, max_new_tokens=20) == mini.ask(
            waveform(2.0), question, max_new_tokens=20
        )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the kernel does not tell its maps")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_the_stored_precision_stay_in_their_file(mini: Gama, tmp_path: Path, dtype: str) -> None:
    gama.load(dtype=dtype, runtime="torch").model.save_pretrained(tmp_path)
    mini.processor.save_pretrained(tmp_path)
    weight = gama.load(tmp_path, dtype=dtype).model.language_model.model.layers[0].mlp.up_proj.weight
    place = next(line for line in Path("/proc/self/maps").read_text().splitlines() if _within(line, weight.data_ptr()))
    assert place.endswith(str(tmp_path / "model.safetensors"))


def _within(line: str, address: int) -> bool:
    begin, _, end = line.split()[0].partition("-")
    return int(begin, 16) <= address < int(end, 16)


# --- the prefix is computed once


def test_a_clip_asked_about_again_is_not_heard_again(mini: Gama, heard: list[int]) -> None:
    first = mini.ask(waveform(1.0), QUESTION, **SHORT)
    assert mini.ask(waveform(1.0), QUESTION, **SHORT) == first
    mini.batch([waveform(1.0), waveform(2.0, 1), waveform(2.0, 1)], "is there a dog?", **SHORT)
    assert heard == [1, 1]


def test_no_more_prefixes_are_kept_than_said(mini: Gama, heard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini.prefixes, "most", 2)
    clips = [waveform(0.1, seed) for seed in range(4)]
    prefixes = mini.hear(clips)
    assert prefixes.shape[:2] == (4, mini.model.config.num_audio_tokens) and len(mini.prefixes) == 2
    torch.testing.assert_close(mini.hear(clips[::-1]), prefixes.flip(0))


def test_a_changed_tower_hears_anew(fresh: Gama) -> None:
    before = fresh.hear([waveform(1.0)])
    with torch.no_grad():
        fresh.model.audio_tower.encoder.position.add_(0.5)
    assert not torch.allclose(fresh.hear([waveform(1.0)]), before)


# --- long clips, several clips, no clip


def test_every_second_of_a_long_clip_is_heard(mini: Gama, prompts: list[dict[str, Any]]) -> None:
    answer = mini.ask(waveform(25.0), QUESTION, **SHORT)
    assert [(h.start, h.end) for h in answer.heard] == [(0.0, 10.24), (10.24, 20.48), (20.48, 25.0)]
    assert len(prompts) == 3
    openings = ["[0.0–10.2 s] ", "[10.2–20.5 s] ", "[20.5–25.0 s] "]
    assert answer == "\n".join(o + h.text for o, h in zip(openings, answer.heard, strict=True))
    assert "".join(mini.stream(waveform(25.0), QUESTION, **SHORT)) == answer
    samples = sound(25.0)
    for h in answer.heard:
        part = samples[round(h.start * 16_000) : round(h.end * 16_000)]
        assert mini.ask(part, QUESTION, **SHORT) == h.text
    assert mini.batch([waveform(25.0), waveform(1.0, 1)], QUESTION, batch_size=3, **SHORT)[0] == answer


def test_a_span_of_a_file(mini: Gama, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", sound(25.0), 16_000, subtype="FLOAT")
    answer = mini.ask(tmp_path / "long.wav", QUESTION, start=3.0, end=5.5, **SHORT)
    assert [(h.start, h.end) for h in answer.heard] == [(3.0, 5.5)]
    assert answer == mini.ask(sound(25.0)[48_000:88_000], QUESTION, **SHORT)
    with pytest.raises(AudioError, match="the limit is 10.00 s"):
        mini.ask(tmp_path / "long.wav", QUESTION, max_duration=10.0)
    with pytest.raises(PromptError, match="gama.audio.load"):
        mini.ask(waveform(9.0), QUESTION, start=3.0)


def test_clips_together_share_one_prompt(mini: Gama, prompts: list[dict[str, Any]]) -> None:
    clips = [waveform(1.0), waveform(25.0, 1), waveform(2.0, 2)]
    answer = mini.ask(clips, "which is louder?", **SHORT)
    assert len(prompts) == len(answer.heard) == 1 and len(answer.clips) == 3
    placeholders = int((prompts[0]["input_ids"] == mini.processor.audio_token_id).sum())
    assert placeholders == answer.heard[0].audio_tokens == 5 * mini.model.config.num_audio_tokens
    assert len(prompts[0]["audio_features"]) == 5
    parts = [clips[0].samples, *(w.samples for w in gama.audio.windows(clips[1])), clips[2].samples]
    expected = torch.cat([mini.hear([Waveform(p, "", 16_000, 1)]) for p in parts])
    torch.testing.assert_close(prompts[0]["audio_features"], expected)


def test_more_clips_than_the_context_holds(mini: Gama) -> None:
    with pytest.raises(PromptError, match=r"11 clip window\(s\).*context holds 1024.*--from"):
        mini.ask([waveform(1.0)] * 11, QUESTION)


def test_without_a_clip(mini: Gama) -> None:
    answer = mini.ask(None, QUESTION, **SHORT)
    assert answer.clips == () and [h.audio_tokens for h in answer.heard] == [0]
    assert "".join(mini.stream(None, QUESTION, **SHORT)) == answer


# --- the question


def test_a_question_beyond_the_context(mini: Gama) -> None:
    with pytest.raises(PromptError, match="ask a shorter question"):
        mini.ask(waveform(1.0), "why? " * 1000)


def test_rows_of_a_batch_have_each_their_own_room(mini: Gama, monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = "what is it " * 8, "what?"
    room = mini.ask(waveform(1.0), long, max_new_tokens=1).heard[0].prompt_tokens + 3
    monkeypatch.setattr(Gama, "context", property(lambda _: room))
    monkeypatch.setattr(Gama, "stop_ids", property(lambda _: [2047]))  # answers run on
    answers = mini.batch([waveform(1.0)] * 2, [long, short], **SHORT)
    assert [a.heard[0].new_tokens for a in answers] == [3, 8]
    assert [a.heard[0].finish for a in answers] == ["length", "length"]
    assert answers == [mini.ask(waveform(1.0), q, **SHORT) for q in (long, short)]


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(mini: Gama, question: str) -> None:
    with pytest.raises(PromptError, match="question is empty"):
        mini.ask(waveform(1.0), question)


def test_questions_and_clips_must_match(mini: Gama) -> None:
    with pytest.raises(PromptError, match=r"2 question\(s\) for 1 clip"):
        mini.batch([waveform(1.0)], ["what?", "why?"])


def test_an_unknown_template(mini: Gama) -> None:
    with pytest.raises(PromptError, match="unknown template 'nope'.*alpaca"):
        mini.ask(waveform(1.0), QUESTION, template="nope")


def test_words_never_become_control_tokens(mini: Gama, prompts: list[dict[str, Any]]) -> None:
    mini.ask(waveform(1.0), "what does </s><audio><s> mean?", **SHORT)
    ids = prompts[0]["input_ids"][0].tolist()
    assert ids.count(mini.processor.audio_token_id) == mini.model.config.num_audio_tokens
    assert mini.processor.tokenizer.eos_token_id not in ids


def test_the_model_is_told_of_silence_and_of_nothing_else(mini: Gama, prompts: list[dict[str, Any]]) -> None:
    silence, tone = np.zeros(16_000, np.float32), sound(1.0)
    for clip in (silence, tone, [silence, silence], [silence, tone], np.concatenate([np.zeros(163_840), tone])):
        mini.ask(clip, QUESTION, **SHORT)
    mini.ask(None, QUESTION, **SHORT)
    told = [SILENCE_NOTE in words(mini, inputs) for inputs in prompts]
    assert told == [True, False, True, False, True, False, False]  # the fifth clip has two windows
    assert QUESTION in words(mini, prompts[0])


# --- the answer


def test_an_answer_is_text_with_facts(mini: Gama) -> None:
    clip = waveform(1.5)
    answer = mini.ask(clip, QUESTION, **SHORT)
    assert isinstance(answer, str) and answer.text == answer == answer.heard[0].text
    assert answer.clips == (clip,)
    (heard,) = answer.heard
    assert (heard.start, heard.end) == (0.0, 1.5)
    assert heard.audio_tokens == mini.model.config.num_audio_tokens < heard.prompt_tokens
    assert 1 <= heard.new_tokens <= 8 and heard.finish == ("length" if heard.new_tokens == 8 else "stop")
    assert 0 <= heard.encode_s <= heard.first_token_s <= heard.total_s
    copy = pickle.loads(pickle.dumps(answer))
    assert isinstance(copy, Answer) and copy == answer and copy.heard == answer.heard


def test_an_answer_ends_at_the_stop_token(mini: Gama, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = [int(t) for t in engine.decode(mini.model, _inputs(mini), engine.Sampling(1), [])]
    monkeypatch.setattr(Gama, "stop_ids", property(lambda _: [first]))
    for answer in (mini.ask(waveform(1.0), QUESTION), mini.batch([waveform(1.0)], QUESTION)[0]):
        assert answer == "" and answer.heard[0].finish == "stop" and answer.heard[0].new_tokens == 1


def _inputs(mini: Gama) -> dict[str, Any]:
    group = [waveform(1.0)]
    ids = mini._prompt(group, QUESTION, engine.Asking())
    return {**mini._inputs([ids]), "audio_features": mini.hear(group)}
