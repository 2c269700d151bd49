"""How a question is put and what comes back, whatever runs the model. No torch."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gama import audio
from gama.audio import Waveform
from gama.errors import PromptError
from gama.prompt import Segment, Turn, instruction, render

Clip = str | Path | bytes | np.ndarray | Waveform


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: most tokens of an answer.
        temperature: 0 takes the likeliest token every time.
        top_p: sample among the likeliest tokens that together hold this probability.
        seed: the same seed gives the same samples; None for chance.
    """

    max_new_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "more than 0 and at most 1")


def _require(fits: bool, what: str, given: float, expected: str) -> None:
    if not fits:
        raise PromptError(f"{what} is {given}, {expected} was expected")


@dataclass(frozen=True)
class Heard:
    """What the model heard of a clip at once, and said about it.

    Attributes:
        start, end: the span in seconds of the file.
        text: the answer about it.
        finish: ``stop`` where the answer ended by itself, ``length`` where it was cut.
        prompt_tokens, audio_tokens, new_tokens: ids read (audio included), of them audio, and written.
        encode_s, first_token_s, total_s: seconds until the prefix, the first token and the end.
    """

    start: float
    end: float
    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    audio_tokens: int
    new_tokens: int
    encode_s: float
    first_token_s: float
    total_s: float


class Answer(str):
    """An answer: text, with what was heard for it.

    Attributes:
        clips: the clips it is about.
        heard: one entry a window; a clip of at most 10.24 s is one window.
    """

    clips: tuple[Waveform, ...]
    heard: tuple[Heard, ...]

    @classmethod
    def of(cls, clips: Sequence[Waveform], heard: Sequence[Heard]) -> Answer:
        """Join what was said about each window, each line naming its span where there are several."""
        answer = cls("".join(_opening(h, len(heard), i) + h.text for i, h in enumerate(heard)))
        answer.clips, answer.heard = tuple(clips), tuple(heard)
        return answer

    @property
    def text(self) -> str:
        """The answer as plain text."""
        return str(self)


def _opening(heard: Heard, windows: int, index: int) -> str:
    if windows == 1:
        return ""
    return ("\n" if index else "") + f"[{heard.start:.1f}–{heard.end:.1f} s] "


@dataclass(frozen=True)
class Asking:
    """How a question is put.

    Attributes:
        sampling: how tokens are chosen.
        template: name of a prompt template; None for the model's own.
        start, end: the span of each clip in seconds; a Waveform is a span already and takes none.
        max_duration: seconds; longer clips are refused.
        channel: ``mix`` or one channel of the clip (the released code takes 0).
    """

    sampling: Sampling = field(default_factory=Sampling)
    template: str | None = None
    start: float | None = None
    end: float | None = None
    max_duration: float = 1800.0
    channel: Literal["mix"] | int = "mix"


def asking(**options: Any) -> Asking:
    """An :class:`Asking` from flat keyword arguments, those of :class:`Sampling` among them."""
    names = set(Sampling.__dataclass_fields__)
    sampling = Sampling(**{k: v for k, v in options.items() if k in names})
    return Asking(sampling=sampling, **{k: v for k, v in options.items() if k not in names})


@dataclass(frozen=True)
class Runtime:
    """What computes the answers, for those who want to know.

    Attributes:
        name: ``torch`` or ``onnxruntime``.
        device, dtype, quantization: of the language model.
        providers: of onnxruntime, in the order they are tried; empty where it computes nothing.
    """

    name: str
    device: str
    dtype: str
    quantization: str = "none"
    providers: tuple[str, ...] = ()


class TextStream:
    """Ids -> text as it grows, never splitting a character.

    Args:
        tokenizer: the language model's.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.shown = 0  # characters already given out

    def push(self, token: int) -> str:
        """The text that this id completes; empty while a character is unfinished."""
        self.ids.append(token)
        text = self.text
        if text.endswith("\ufffd"):
            return ""
        return self._give(text)

    def finish(self) -> str:
        """What is left, unfinished characters as the replacement character."""
        return self._give(self.text)

    def _give(self, text: str) -> str:
        piece, self.shown = text[self.shown :], max(self.shown, len(text))
        return piece

    @property
    def text(self) -> str:
        """All of it so far."""
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Asker(ABC):
    """Something that can be asked about sound: clips and a question in, an :class:`Answer` out.

    Attributes:
        name: as it was asked for.
    """

    name: str

    # -- what runs the model says ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def runtime(self) -> Runtime:
        """What computes the answers."""

    @property
    @abstractmethod
    def context(self) -> int:
        """Tokens the language model can attend to."""

    @property
    @abstractmethod
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""

    @property
    @abstractmethod
    def template(self) -> str:
        """The model's own prompt template."""

    @property
    @abstractmethod
    def num_audio_tokens(self) -> int:
        """Soft tokens a clip becomes."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The language model's tokenizer: ``decode(ids, skip_special_tokens=…, clean_up_tokenization_spaces=…)``."""

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""

    @abstractmethod
    def _read_in(self, ids: list[int], group: Sequence[Waveform]) -> Any:
        """One prompt with its windows heard: what :meth:`_tokens` needs."""

    @abstractmethod
    def _tokens(self, inputs: Any, sampling: Sampling) -> Iterator[int]:
        """The ids of the answer, the stopping one included."""

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, clips: Clip | Sequence[Clip] | None, question: str, **options: Any) -> Answer:
        """Answer a question about a clip, about several clips together, or about none.

        Args:
            clips: path, ``-``, bytes, samples at 16 kHz or Waveform; a list for several in one prompt.
            question: what is asked.
            options: fields of :class:`Asking` and :class:`Sampling`, such as ``max_new_tokens``, ``temperature``,
                ``start``, ``end``.

        Raises:
            AudioError: for a clip that cannot be read; it names the clip.
            PromptError: for an empty question, or one beyond the context.
        """
        return _last(self.stream(clips, question, **options))

    def stream(
        self, clips: Clip | Sequence[Clip] | None, question: str, **options: Any
    ) -> Generator[str, None, Answer]:
        """Yield the answer in pieces as it is generated; the generator returns the :class:`Answer`."""
        how = asking(**options)
        waveforms = self.read(clips, how)
        groups = self._windows(waveforms, together=isinstance(clips, (list, tuple)))
        heard: list[Heard] = []
        for index, group in enumerate(groups):
            begun = Span(*span(group))
            opening = _opening(begun.heard(), len(groups), index)
            if opening:
                yield opening
            heard.append((yield from self._window(group, question, how)))
        return Answer.of(waveforms, heard)

    def batch(
        self, clips: Sequence[Clip], question: str | Sequence[str], *, batch_size: int = 8, **options: Any
    ) -> list[Answer]:
        """Answer about each clip by itself, several at a time.

        Args:
            clips: the clips.
            question: one for all, or one a clip.
            batch_size: windows computed together; each is answered as if alone.
        """
        questions = [question] * len(clips) if isinstance(question, str) else list(question)
        if len(questions) != len(clips):
            raise PromptError(f"{len(questions)} question(s) for {len(clips)} clip(s)", "give one, or one a clip")
        how = asking(**options)
        waveforms = [self.read(clip, how)[0] for clip in clips]
        jobs = [(i, group) for i, w in enumerate(waveforms) for group in self._windows([w], together=False)]
        heard: list[list[Heard]] = [[] for _ in clips]
        for first in range(0, len(jobs), batch_size):
            part = jobs[first : first + batch_size]
            for (index, _), said in zip(part, self._batch(part, questions, how), strict=True):
                heard[index].append(said)
        return [Answer.of([w], said) for w, said in zip(waveforms, heard, strict=True)]

    def _batch(self, jobs: Sequence[tuple[int, list[Waveform]]], questions: Sequence[str], how: Asking) -> list[Heard]:
        return [_last(self._window(group, questions[index], how)) for index, group in jobs]

    # -- hearing -----------------------------------------------------------------------------------------------------

    def read(self, clips: Clip | Sequence[Clip] | None, how: Asking) -> list[Waveform]:
        """Decode clips to waveforms, spans cut."""
        if clips is None:
            return []
        if isinstance(clips, (list, tuple)) and not clips:
            raise PromptError("an empty list of clips was given", "give clips, or None to ask without sound")
        each: Sequence[Any] = clips if isinstance(clips, (list, tuple)) else [clips]
        return [self._read(clip, how) for clip in each]

    def _read(self, clip: Clip, how: Asking) -> Waveform:
        if isinstance(clip, Waveform):
            if how.start is not None or how.end is not None:
                raise PromptError(
                    f"a span was given for the decoded clip {clip.source}", "give the span to gama.audio.load"
                )
            return clip
        rate = audio.SAMPLE_RATE if isinstance(clip, np.ndarray) else None
        return audio.load(
            clip, channel=how.channel, start=how.start, end=how.end, max_duration=how.max_duration, sampling_rate=rate
        )

    def _windows(self, waveforms: Sequence[Waveform], *, together: bool) -> list[list[Waveform]]:
        """What is heard at once: each window by itself, or every window of every clip in one prompt."""
        windows = [window for waveform in waveforms for window in audio.windows(waveform)]
        return [windows] if together or not windows else [[window] for window in windows]

    # -- one prompt --------------------------------------------------------------------------------------------------

    def _prompt(self, group: Sequence[Waveform], question: str, how: Asking) -> list[int]:
        silent = bool(group) and all(w.is_silent for w in group)
        turn = Turn("user", instruction(question, silent=silent), clips=len(group))
        ids = self.encode(render([turn], how.template or self.template))
        room = self.context - len(ids)
        if room < 1:
            raise PromptError(
                f"the prompt has {len(ids)} tokens ({len(group)} clip window(s) of "
                f"{self.num_audio_tokens} each), the model's context holds {self.context}",
                "ask a shorter question, or about less sound (--from, --to)",
            )
        return ids

    def _window(self, group: list[Waveform], question: str, how: Asking) -> Generator[str, None, Heard]:
        begun = time.perf_counter()
        ids = self._prompt(group, question, how)
        inputs = self._read_in(ids, group)
        encoded = time.perf_counter()
        stream = TextStream(self.tokenizer)
        sampling = replace(how.sampling, max_new_tokens=min(how.sampling.max_new_tokens, self.context - len(ids)))
        first, count, finish = 0.0, 0, "length"
        for token in self._tokens(inputs, sampling):
            first = first or time.perf_counter()
            count += 1
            if token in self.stop_ids:
                finish = "stop"
                break
            if piece := stream.push(token):
                yield piece
        if piece := stream.finish():
            yield piece
        facts = Span(*span(group), len(ids), len(group) * self.num_audio_tokens)
        times = (encoded - begun, (first or encoded) - begun, time.perf_counter() - begun)
        return facts.heard(stream.text, finish, count, times)


def _last(pieces: Generator[str, None, Any]) -> Any:
    """What a generator returns, its pieces passed over."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


@dataclass(frozen=True)
class Span:
    """The facts of a prompt that do not depend on its answer: see :class:`Heard`."""

    start: float
    end: float
    prompt_tokens: int = 0
    audio_tokens: int = 0

    def heard(
        self, text: str = "", finish: Any = "stop", new: int = 0, times: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Heard:
        """The whole entry."""
        return Heard(self.start, self.end, text, finish, self.prompt_tokens, self.audio_tokens, new, *times)


def span(group: Sequence[Waveform]) -> tuple[float, float]:
    """The span of one window in its file; of several heard together, from 0 to how long they are."""
    if len(group) == 1:
        return group[0].start, group[0].start + group[0].duration
    return 0.0, sum(window.duration for window in group)


__all__ = ["Answer", "Asker", "Asking", "Clip", "Heard", "Runtime", "Sampling", "TextStream", "asking"]
