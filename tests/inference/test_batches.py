"""Many requests: in order, sorted for little padding, read and heard ahead, errors with their rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gama import audio
from gama.audio import Waveform
from gama.errors import AudioError, CheckpointError, PromptError
from gama.inference.answers import Heard
from gama.inference.asking import Asker, Prompt, Runtime
from gama.inference.batches import replies
from gama.inference.hearing import Asking, Request
from gama.inference.sampling import Sampling
from gama.prompt import Clip, Segment, Text


class Counting(Asker):
    """Says how long its prompt is; remembers what it was given, and by which thread."""

    name, context, stop_ids, template, num_audio_tokens, audio_token_id = "counting", 1000, [0], "plain", 2, 9
    runtime, tokenizer = Runtime("stub", "cpu", "float32"), None

    def __init__(self) -> None:
        super().__init__()
        self.batched: list[list[Prompt]] = []
        self.heard: list[tuple[str, list[str]]] = []
        self.answering = threading.Event()
        self.overlapped = False

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        ids: list[int] = []
        for segment in segments:
            ids += [9, 9] if isinstance(segment, Clip) else [1] * len(segment.text) if isinstance(segment, Text) else []
        return ids

    def hear(self, waveforms: Sequence[Waveform]) -> Any:
        self.overlapped |= self.answering.wait(0.2) if self.batched else False
        self.heard.append((threading.current_thread().name, [w.source for w in waveforms]))

    def hearing_key(self) -> str:
        return "counting"

    def said(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Heard]:
        self.batched.append(list(prompts))
        self.answering.set()
        threading.Event().wait(0.02)
        self.answering.clear()
        return [Heard(0, 1, str(len(p.ids)), "stop", len(p.ids), 2, 1, 0, 0, 0) for p in prompts]

    def _read_in(self, ids: list[int], group: Sequence[Waveform]) -> Any:
        raise NotImplementedError

    def _tokens(self, inputs: Any, sampling: Sampling) -> Iterator[int]:
        raise NotImplementedError


def clip(seed: int, seconds: float = 0.1) -> Waveform:
    samples = np.random.default_rng(seed).standard_normal(round(16_000 * seconds)).astype(np.float32)
    return Waveform(samples, f"c{seed}", 16_000, 1)


def test_answers_are_in_order_and_batches_of_like_length() -> None:
    asker = Counting()
    lengths = [30, 3, 29, 4, 28, 5, 27, 6]
    requests = [Request(clip(i), "x" * n) for i, n in enumerate(lengths)]
    found = list(replies(lambda: asker, requests, Asking(), batch_size=4))
    assert [int(str(r.answer)) for r in found] == [n + 3 for n in lengths]  # the sound, the words and a line end
    assert [sorted(len(p.ids) - 3 for p in batch) for batch in asker.batched] == [[3, 4, 5, 6], [27, 28, 29, 30]]


def test_questions_about_one_sound_stand_together() -> None:
    asker = Counting()
    requests = [Request(clip(i % 2), "x" * (1 + 10 * (i // 2))) for i in range(6)]
    list(replies(lambda: asker, requests, Asking(), batch_size=3))
    assert [{w.source for p in batch for w in p.windows} for batch in asker.batched] == [{"c0"}, {"c1"}]
    assert all(len(sources) == 1 for _, sources in asker.heard)


def test_the_next_batch_is_heard_while_one_is_answered() -> None:
    asker = Counting()
    list(replies(lambda: asker, [Request(clip(i), "x") for i in range(9)], Asking(), batch_size=3))
    assert [len(sources) for _, sources in asker.heard] == [3, 3, 3]
    assert asker.heard[0][0] == "MainThread" and {name[:9] for name, _ in asker.heard[1:]} == {"gama-hear"}
    assert asker.overlapped


def test_what_is_wrong_stays_with_its_request(tmp_path: Path) -> None:
    asker = Counting()
    (tmp_path / "noise.wav").write_bytes(b"noise")
    requests = [
        Request(clip(0), "good"),
        Request(tmp_path / "none.wav", "what?"),
        Request(clip(1), "x" * 2000),
        Request(tmp_path / "noise.wav", "what?"),
        Request(clip(2), "  "),
        Request(None, "without sound"),
        Request([clip(3), clip(4)], "together"),
    ]
    found = list(replies(lambda: asker, requests, Asking(), batch_size=2))
    assert [None if r.error is None else type(r.error) for r in found] == [
        None, AudioError, PromptError, AudioError, PromptError, None, None,
    ]  # fmt: skip
    assert "none.wav: no such file" in str(found[1].error) and "context holds 1000" in str(found[2].error)
    assert found[6].answer is not None and len(found[6].answer.clips) == 2
    with pytest.raises(AudioError):
        found[1].answer_or_raise()


def test_a_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Any] = []
    load = audio.load
    monkeypatch.setattr(audio, "load", lambda path, **rest: decoded.append(path) or load(path, **rest))
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, 0.1 * np.ones(1600), 16_000)
    requests = [Request(tmp_path / name, f"q{i}") for i in range(5) for name in ("a.wav", "b.wav")]
    assert len(list(replies(Counting, requests, Asking(), batch_size=8))) == 10
    assert sorted(path.name for path in decoded) == ["a.wav", "b.wav"]


def test_no_model_is_opened_for_clips_that_cannot_be_read(tmp_path: Path) -> None:
    def forbidden() -> Asker:
        raise AssertionError("the model was opened")

    requests = [Request(tmp_path / f"none{i}.wav", "what?") for i in range(40)]
    assert all(r.error is not None for r in replies(forbidden, requests, Asking(), batch_size=2))


def test_requests_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Request]:
        number = 0
        while True:
            taken.append(number)
            yield Request(clip(number, 0.025), "x")
            number += 1

    stream = replies(Counting, endless(), Asking(), batch_size=2)
    assert [str(next(stream).answer) for _ in range(5)] == ["4"] * 5
    stream.close()  # type: ignore[attr-defined]
    assert len(taken) < 40
    assert not [t for t in threading.enumerate() if t.name.startswith("gama-")]


def test_what_is_wrong_with_the_model_ends_the_run() -> None:
    def broken() -> Asker:
        raise CheckpointError("no weights")

    with pytest.raises(CheckpointError, match="no weights"):
        list(replies(broken, [Request(clip(0), "x")], Asking()))

    class Deaf(Counting):
        def hear(self, waveforms: Sequence[Waveform]) -> Any:
            super().hear(waveforms)
            if len(self.heard) > 1:
                raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(replies(Deaf, [Request(clip(i), "x") for i in range(4)], Asking(), batch_size=2))


def test_a_batch_that_does_not_fit_is_answered_in_halves(caplog: pytest.LogCaptureFixture) -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch's is called."""

    class Narrow(Counting):
        most = 2

        def said(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Heard]:
            if len(prompts) > self.most:
                raise OutOfMemoryError("CUDA out of memory")
            return super().said(prompts, sampling)

    asker = Narrow()
    requests = [Request(clip(i), "x" * (i + 1)) for i in range(5)]
    found = [str(reply.answer) for reply in replies(lambda: asker, requests, Asking(), batch_size=8)]
    assert found == ["4", "5", "6", "7", "8"] and [len(batch) for batch in asker.batched] == [2, 1, 2]
    assert "no memory for 5 prompts together" in caplog.text
    asker.most = 0
    with pytest.raises(OutOfMemoryError):
        list(replies(lambda: asker, requests, Asking()))


def test_no_batch_of_nothing() -> None:
    with pytest.raises(PromptError, match="batch_size is 0"):
        list(replies(Counting, [], Asking(), batch_size=0))
    assert list(replies(Counting, [], Asking())) == []


def test_a_long_clip_is_asked_about_window_by_window() -> None:
    (reply,) = replies(Counting, [Request(clip(0, 25.0), "xx")], Asking(), batch_size=2)
    assert reply.answer is not None and str(reply.answer).count("\n") == 2
