"""``gama.load()`` and what can be asked of it: one engine under every command."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gama import audio
from gama.audio import Waveform
from gama.errors import PromptError
from gama.inference.decoding import Sampling, TextStream, decode
from gama.inference.loading import load_model
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.prompt import Turn, instruction, render

Clip = str | Path | bytes | np.ndarray | Waveform
Quantization = Literal["none", "8bit", "4bit"]

_KEPT_PREFIXES = 64  # clips whose prefix is remembered


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


class Gama:
    """A model ready to be asked.

    Attributes:
        model: the transformers model.
        processor: text and clips to its inputs.
        name: as it was asked for.
        quantization: ``none``, ``8bit`` or ``4bit``.
    """

    def __init__(
        self,
        model: GamaForConditionalGeneration,
        processor: GamaProcessor,
        *,
        name: str = "",
        quantization: Quantization = "none",
    ) -> None:
        self.model = model
        self.processor = processor
        self.name = name
        self.quantization = quantization
        self._prefixes: dict[str, torch.Tensor] = {}
        self._tower_state: tuple[tuple[int, int], ...] = ()

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, clips: Clip | Sequence[Clip] | None, question: str, **options: Any) -> Answer:
        """Answer a question about a clip, about several clips together, or about none.

        Args:
            clips: path, ``-``, bytes, samples at 16 kHz or Waveform; a list for several in one prompt.
            question: what is asked.
            options: fields of :class:`Asking` and :class:`~gama.inference.decoding.Sampling`, such as
                ``max_new_tokens``, ``temperature``, ``start``, ``end``.

        Raises:
            AudioError: for a clip that cannot be read; it names the clip.
            PromptError: for an empty question, or one beyond the context.
        """
        pieces = self.stream(clips, question, **options)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return end.value

    def stream(
        self, clips: Clip | Sequence[Clip] | None, question: str, **options: Any
    ) -> Generator[str, None, Answer]:
        """Yield the answer in pieces as it is generated; the generator returns the :class:`Answer`."""
        how = asking(**options)
        waveforms = self.read(clips, how)
        groups = self._windows(waveforms, together=isinstance(clips, (list, tuple)))
        heard: list[Heard] = []
        for index, group in enumerate(groups):
            begun = _Span(*_span(group))
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

    @torch.inference_mode()
    def hear(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """The prefix of each waveform of at most 10.24 s: (clips, 96, D); what was heard lately is not heard again."""
        state = tuple((p.data_ptr(), p._version) for p in self.model.audio_tower.parameters())
        if state != self._tower_state:  # trained on, or moved to another device
            self._prefixes, self._tower_state = {}, state
        new = {w.sha256: w for w in waveforms if w.sha256 not in self._prefixes}
        if new:
            values = self.processor.feature_extractor(list(new.values()))["audio_values"]
            for key, prefix in zip(new, self.model.get_audio_features(values.to(self.model.device)), strict=True):
                self._prefixes[key] = prefix
        prefixes = torch.stack([self._prefixes[w.sha256] for w in waveforms])
        for key in list(self._prefixes)[:-_KEPT_PREFIXES]:
            del self._prefixes[key]
        return prefixes

    # -- one prompt --------------------------------------------------------------------------------------------------

    def _prompt(self, group: Sequence[Waveform], question: str, how: Asking) -> list[int]:
        silent = bool(group) and all(w.is_silent for w in group)
        turn = Turn("user", instruction(question, silent=silent), clips=len(group))
        ids = self.processor.encode(render([turn], how.template or self.processor.template))
        room = self.context - len(ids)
        if room < 1:
            raise PromptError(
                f"the prompt has {len(ids)} tokens ({len(group)} clip window(s) of "
                f"{self.model.config.num_audio_tokens} each), the model's context holds {self.context}",
                "ask a shorter question, or about less sound (--from, --to)",
            )
        return ids

    @property
    def context(self) -> int:
        """Tokens the language model can attend to."""
        return int(getattr(self.model.config.text_config, "max_position_embeddings", 4096))

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return [i for i in {*ids, self.processor.tokenizer.eos_token_id} if i is not None]

    def _window(self, group: list[Waveform], question: str, how: Asking) -> Generator[str, None, Heard]:
        begun = time.perf_counter()
        ids = self._prompt(group, question, how)
        inputs = self._inputs([ids])
        if group:
            inputs["audio_features"] = self.hear(group)
        encoded = time.perf_counter()
        stream = TextStream(self.processor.tokenizer)
        sampling = replace(how.sampling, max_new_tokens=min(how.sampling.max_new_tokens, self.context - len(ids)))
        first, count, finish = 0.0, 0, "length"
        for token in decode(self.model, inputs, sampling, self.stop_ids):
            first = first or time.perf_counter()
            count += 1
            if int(token) in self.stop_ids:
                finish = "stop"
                break
            if piece := stream.push(int(token)):
                yield piece
        if piece := stream.finish():
            yield piece
        span = _Span(*_span(group), len(ids), len(group) * self.model.config.num_audio_tokens)
        times = (encoded - begun, (first or encoded) - begun, time.perf_counter() - begun)
        return span.heard(stream.text, finish, count, times)

    def _batch(self, jobs: Sequence[tuple[int, list[Waveform]]], questions: Sequence[str], how: Asking) -> list[Heard]:
        begun = time.perf_counter()
        prompts = [self._prompt(group, questions[index], how) for index, group in jobs]
        inputs = self._inputs(prompts)
        inputs["audio_features"] = self.hear([window for _, group in jobs for window in group])
        encoded = time.perf_counter()
        limits = [min(how.sampling.max_new_tokens, self.context - len(p)) for p in prompts]
        rows: list[list[int]] = [[] for _ in jobs]
        finish = ["length"] * len(jobs)
        first = 0.0
        for tokens in decode(self.model, inputs, how.sampling, self.stop_ids, limits):
            first = first or time.perf_counter()
            for row, token in enumerate(tokens.tolist()):
                if finish[row] == "length" and len(rows[row]) < limits[row]:
                    rows[row].append(token)
                    finish[row] = "stop" if token in self.stop_ids else "length"
        times = (encoded - begun, (first or encoded) - begun, time.perf_counter() - begun)
        tokenizer = self.processor.tokenizer
        heard = []
        for (_, group), prompt, ids, end in zip(jobs, prompts, rows, finish, strict=True):
            text = tokenizer.decode(
                [i for i in ids if i not in self.stop_ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            span = _Span(*_span(group), len(prompt), len(group) * self.model.config.num_audio_tokens)
            heard.append(span.heard(text, end, len(ids), times))
        return heard

    def _inputs(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        longest = max(map(len, prompts))
        fill = self.processor.tokenizer.pad_token_id or 0
        device = self.model.device
        return {
            "input_ids": torch.tensor([[fill] * (longest - len(p)) + list(p) for p in prompts], device=device),
            "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device),
        }


@dataclass(frozen=True)
class _Span:
    """The facts of a prompt that do not depend on its answer."""

    start: float
    end: float
    prompt_tokens: int = 0
    audio_tokens: int = 0

    def heard(
        self, text: str = "", finish: Any = "stop", new: int = 0, times: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> Heard:
        return Heard(self.start, self.end, text, finish, self.prompt_tokens, self.audio_tokens, new, *times)


def _span(group: Sequence[Waveform]) -> tuple[float, float]:
    """The span of one window in its file; of several heard together, from 0 to how long they are."""
    if len(group) == 1:
        return group[0].start, group[0].start + group[0].duration
    return 0.0, sum(window.duration for window in group)


def load(
    name_or_dir: str | Path | None = None,
    *,
    quant: Quantization = "none",
    device: str = "auto",
    dtype: str = "auto",
) -> Gama:
    """Load a model: the packaged gama-mini by default.

    Args:
        name_or_dir: a name or a folder of ``save_pretrained``.
        quant: hold the language model in 8 or 4 bits (bitsandbytes); the audio tower stays as it is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto`` (float32 on a CPU, bfloat16 on a GPU), ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        CheckpointError: when there is no such model or its weights do not fit.
        DeviceError: for a device this machine does not have.
        MissingPackageError: when quantization is asked for without bitsandbytes.
    """
    model, processor = load_model(name_or_dir, quant=quant, device=device, dtype=dtype)
    return Gama(model, processor, name=str(name_or_dir or "mini"), quantization=quant)


__all__ = ["Answer", "Asking", "Gama", "Heard", "load"]
