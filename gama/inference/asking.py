"""How a question is put and what comes back, whatever runs the model. No torch."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from gama.audio import Waveform
from gama.errors import OptionError, PromptError
from gama.inference.answers import Answer, Heard, Span, opening, span
from gama.inference.hearing import Asking, AskOptions, Clip, Request, asking, read, windows
from gama.inference.prefixes import Prefixes, PrefixStore
from gama.inference.sampling import Sampling
from gama.inference.streaming import TextStream
from gama.prompt import Segment, Turn, instruction, render
from gama.text import shown

if TYPE_CHECKING:
    from gama.inference.batches import Reply


@dataclass(frozen=True)
class Runtime:
    """What computes the answers, for those who want to know.

    Attributes:
        name: ``torch`` or ``onnxruntime``.
        device, dtype, quantization: of the language model.
        providers: of onnxruntime, in the order they are tried; empty where it computes nothing.
        weight_bytes: all weights as they are held in memory; 0 where that is not known.
    """

    name: str
    device: str
    dtype: str
    quantization: str = "none"
    providers: tuple[str, ...] = ()
    weight_bytes: int = 0


@dataclass(frozen=True)
class Prompt:
    """What the model reads for one answer.

    Attributes:
        ids: with ``num_audio_tokens`` placeholders for each window.
        windows: the waveforms they stand for, in reading order; each of at most 10.24 s.
    """

    ids: tuple[int, ...]
    windows: tuple[Waveform, ...]


class Asker(ABC):
    """Something that can be asked about sound: clips and a question in, an :class:`Answer` out.

    Attributes:
        name: as it was asked for.
        prefixes: what was heard lately, and on disk where :meth:`keep_prefixes` was called.
    """

    name: str

    def __init__(self) -> None:
        self.prefixes = Prefixes()
        self._hearing_lock = threading.Lock()  # the next batch is heard while this one is answered

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
    def audio_token_id(self) -> int:
        """The placeholder of a soft token."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The language model's tokenizer: ``decode(ids, skip_special_tokens=…, clean_up_tokenization_spaces=…)``."""

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""

    def segments(self, turns: Sequence[Turn], template: str | None = None) -> Sequence[Segment]:
        """Turns -> segments, by the template of that name, or else the model's own."""
        return render(turns, template or self.template)

    @abstractmethod
    def hear(self, waveforms: Sequence[Waveform]) -> Any:
        """The prefix of each waveform of at most 10.24 s: (clips, P, D); what was heard lately is not heard again."""

    @abstractmethod
    def hearing_key(self) -> str:
        """Hash of all that a prefix depends on beside the sound: weights, precision, settings of the front end."""

    @abstractmethod
    def _read_in(self, ids: list[int], group: Sequence[Waveform]) -> Any:
        """One prompt with its windows heard: what :meth:`_tokens` needs."""

    @abstractmethod
    def _tokens(self, inputs: Any, sampling: Sampling) -> Iterator[int]:
        """The ids of the answer, the stopping one included."""

    def said(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Heard]:
        """Answers to several prompts, each as if it were alone."""
        return [last(self._said(prompt, sampling)) for prompt in prompts]

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, clips: Clip | Sequence[Clip] | None, question: str, **options: Unpack[AskOptions]) -> Answer:
        """Answer a question about a clip, about several clips together, or about none.

        Args:
            clips: path, ``-``, bytes, samples or Waveform; a list for several in one prompt.
            question: what is asked.
            options: fields of :class:`Asking` and :class:`Sampling`, such as ``max_new_tokens``, ``temperature``,
                ``start``, ``end``, ``sampling_rate`` (of samples; 16 kHz where it is not given); or ``preset``.

        Raises:
            AudioError: for a clip that cannot be read; it names the clip.
            PromptError: for an empty question, one beyond the context, or an unknown keyword argument.
        """
        return last(self.stream(clips, question, **options))

    def stream(
        self, clips: Clip | Sequence[Clip] | None, question: str, **options: Unpack[AskOptions]
    ) -> Generator[str, None, Answer]:
        """Yield the answer in pieces as it is generated; the generator returns the :class:`Answer`."""
        how = asking(**options)
        waveforms = read(clips, how)
        groups = windows(waveforms, together=isinstance(clips, (list, tuple)))
        heard: list[Heard] = []
        for index, group in enumerate(groups):
            if begins := opening(*span(group), len(groups), index):
                yield begins
            heard.append((yield from self._said(self.prompt(group, question, how), how.sampling)))
        return Answer.of(waveforms, heard)

    def ask_many(
        self,
        clips: Clip | Sequence[Clip] | None,
        questions: Sequence[str],
        *,
        batch_size: int = 8,
        **options: Unpack[AskOptions],
    ) -> list[Answer]:
        """Answer several questions about the same sound, which is heard and read once; otherwise as :meth:`ask`."""
        if isinstance(questions, (str, bytes)):
            raise OptionError(f"questions is {shown(questions)}, a list of questions was expected", "ask() takes one")
        return self._batched([clips] * len(questions), list(questions), batch_size, options)

    def batch(
        self,
        clips: Sequence[Clip],
        question: str | Sequence[str],
        *,
        batch_size: int = 8,
        **options: Unpack[AskOptions],
    ) -> list[Answer]:
        """Answer about each clip by itself, several at a time.

        Args:
            clips: the clips.
            question: one for all, or one a clip.
            batch_size: windows computed together; each is answered as if alone.
        """
        if clips is None or isinstance(clips, (str, bytes, Path, Waveform)):
            raise OptionError(f"clips is {shown(clips)}, a list of clips was expected", "ask() takes one")
        questions = [question] * len(clips) if isinstance(question, str) else list(question)
        if len(questions) != len(clips):
            raise PromptError(f"{len(questions)} question(s) for {len(clips)} clip(s)", "give one, or one a clip")
        return self._batched(list(clips), questions, batch_size, options)

    def _batched(
        self, clips: Sequence[Any], questions: Sequence[str], batch_size: int, options: AskOptions
    ) -> list[Answer]:
        requests = [Request(clip, question) for clip, question in zip(clips, questions, strict=True)]
        return [reply.answer_or_raise() for reply in self.replies(requests, batch_size=batch_size, **options)]

    def replies(
        self, requests: Iterable[Request], *, batch_size: int = 8, **options: Unpack[AskOptions]
    ) -> Iterator[Reply]:
        """Answer requests in order, taking them as they are needed; what is wrong with one is its own reply."""
        from gama.inference.batches import replies

        return replies(lambda: self, requests, asking(**options), batch_size=batch_size)

    # -- prompts -----------------------------------------------------------------------------------------------------

    def prompt(self, group: Sequence[Waveform], question: str, how: Asking) -> Prompt:
        """One question about the windows of a group.

        Raises:
            PromptError: for an empty question, or one beyond the context.
        """
        return Prompt(tuple(self._prompt(group, question, how)), tuple(group))

    def _prompt(self, group: Sequence[Waveform], question: str, how: Asking) -> list[int]:
        silent = bool(group) and all(w.is_silent for w in group)
        turn = Turn("user", instruction(question, silent=silent), clips=len(group))
        ids = self.encode(self.segments([turn], how.template))
        self.require_room(len(ids), len(group))
        return ids

    def require_room(self, tokens: int, windows: int) -> None:
        """Refuse a prompt that leaves no room for an answer.

        Raises:
            PromptError: it names the prompt's length and the context's.
        """
        if tokens >= self.context:
            raise PromptError(
                f"the prompt has {tokens} tokens ({windows} clip window(s) of "
                f"{self.num_audio_tokens} each), the model's context holds {self.context}",
                "ask a shorter question, or about less sound (--from, --to)",
            )

    def limited(self, sampling: Sampling, tokens: int) -> Sampling:
        """The same with no more new tokens than the context has room for."""
        return replace(sampling, max_new_tokens=min(sampling.max_new_tokens, self.context - tokens))

    def _said(self, prompt: Prompt, sampling: Sampling, inputs: Any = None) -> Generator[str, None, Heard]:
        """Yield one answer in pieces; the generator returns it whole.

        Args:
            prompt: what is read.
            sampling: how to choose.
            inputs: the prompt as :meth:`_tokens` needs it, where it is prepared already.
        """
        begun = time.perf_counter()
        inputs = self._read_in(list(prompt.ids), prompt.windows) if inputs is None else inputs
        encoded = time.perf_counter()
        stream = TextStream(self.tokenizer)
        stops = set(self.stop_ids)
        first, count, finish = 0.0, 0, "length"
        for token in self._tokens(inputs, self.limited(sampling, len(prompt.ids))):
            first = first or time.perf_counter()
            count += 1
            if token in stops:
                finish = "stop"
                break
            if piece := stream.push(token):
                yield piece
        if piece := stream.finish():
            yield piece
        facts = Span(*span(prompt.windows), len(prompt.ids), len(prompt.windows) * self.num_audio_tokens)
        times = (encoded - begun, (first or encoded) - begun, time.perf_counter() - begun)
        return facts.heard(stream.text, finish, count, times)

    def whole(self, ids: Iterable[int]) -> str:
        """The text of an answer's ids, as it would have been streamed."""
        stream = TextStream(self.tokenizer)
        for token in ids:
            stream.push(token)
        stream.finish()
        return stream.text

    # -- prefixes ----------------------------------------------------------------------------------------------------

    def keep_prefixes(self, store: PrefixStore) -> None:
        """Keep prefixes on disk, too, so that no clip is heard twice by the same model."""
        self.prefixes.store = store


def last(pieces: Generator[str, None, Any]) -> Any:
    """What a generator returns, its pieces passed over."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


__all__ = ["Answer", "Asker", "Asking", "Clip", "Heard", "Prompt", "Runtime", "Sampling", "Span", "TextStream"]
__all__ += ["asking", "span"]
