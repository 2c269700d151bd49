"""GamaProcessor: text and clips -> model inputs; GamaFeatureExtractor: waveforms -> fbank."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from gama import audio as audio_io
from gama.errors import AudioError, PromptError
from gama.fbank import kaldi_fbank
from gama.model.bounded_jinja import render_jinja_template
from gama.prompt import AUDIO_PLACEHOLDER, Clip, Mark, Segment, Text, Turn, join_text, plain, render

_HELD = re.compile("\ue000(\\d+)\ue001")  # a user's words, held back while a chat template is rendered


class GamaFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms at 16 kHz -> ``audio_values`` (clips, num_frames, num_mel_bins), normalised Kaldi fbank."""

    model_input_names = ["audio_values"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        num_frames: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_frames = num_frames

    def __call__(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Features of one clip or a list of clips.

        Args:
            audio: samples (N,), a Waveform, a path, or a list of these.
            sampling_rate: rate of given samples in Hz; 16 kHz where it is not said.

        Raises:
            AudioError: for a clip that cannot be read or is shorter than 25 ms.
        """
        clips = [_samples(clip, sampling_rate or self.sampling_rate) for clip in as_clips(audio)]
        fbank = kaldi_fbank(self.num_frames, self.feature_size)
        values = torch.cat([fbank(torch.from_numpy(clip).unsqueeze(0)) for clip in clips])
        return BatchFeature({"audio_values": values}, tensor_type=return_tensors)


def as_clips(audio: Any) -> list[Any]:
    """One clip, a list of clips or a list of lists -> a flat list, in reading order."""
    if isinstance(audio, (list, tuple)) and not (audio and isinstance(audio[0], (float, int))):
        return [clip for part in audio for clip in as_clips(part)]
    if isinstance(audio, (np.ndarray, torch.Tensor)) and audio.ndim == 2:
        return list(audio)
    return [audio]


def _samples(clip: Any, sampling_rate: int) -> np.ndarray:
    if isinstance(clip, audio_io.Waveform):
        return clip.samples
    if isinstance(clip, torch.Tensor):
        clip = clip.detach().cpu().float().numpy()
    if isinstance(clip, (list, tuple)):
        clip = np.asarray(clip, dtype=np.float32)
    if isinstance(clip, np.ndarray):
        return audio_io.load(clip, sampling_rate=sampling_rate).samples
    return audio_io.load(clip).samples


class GamaProcessor(ProcessorMixin):
    """Text and clips to what the model reads.

    Args:
        feature_extractor: see :class:`GamaFeatureExtractor`.
        tokenizer: the language model's.
        chat_template: a Jinja template; None for GAMA's own prompt (``template``).
        audio_token: how a clip is written in ``text``.
        audio_token_id: the model's ``config.audio_token_id``; by default the first id beyond the tokenizer.
        num_audio_tokens: the model's ``config.num_audio_tokens``.
        template: name of the prompt template of :mod:`gama.prompt`.
    """

    def __init__(
        self,
        feature_extractor: GamaFeatureExtractor | None = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        audio_token: str = AUDIO_PLACEHOLDER,
        audio_token_id: int | None = None,
        num_audio_tokens: int = 96,
        template: str = "gama",
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_extractor or GamaFeatureExtractor(), tokenizer, chat_template=chat_template)
        self.audio_token = audio_token
        self.audio_token_id = len(tokenizer) if audio_token_id is None else audio_token_id
        self.num_audio_tokens = num_audio_tokens
        self.template = template

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "audio_values"]

    # -- text with placeholders --------------------------------------------------------------------------------------

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        *,
        sampling_rate: int | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = True,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Text with ``<audio>`` placeholders and the clips they stand for.

        Args:
            text: one prompt or a batch. Without any placeholder, each prompt's share of the clips goes in front.
            audio: clips in reading order over the batch: samples, Waveforms, paths, or lists of these per prompt.
            sampling_rate: rate of given samples in Hz (default 16 kHz).

        Returns:
            ``input_ids`` and ``attention_mask`` (B, T), padded on the left before everything, and ``audio_values``
            (clips, 1024, 128) where clips are given.

        Raises:
            PromptError: where placeholders and clips do not match.
        """
        clips = [] if audio is None else as_clips(audio)
        if not text and not clips:
            raise PromptError("neither text nor a clip was given", "give text=…, audio=… or both")
        if not text:
            return self.feature_extractor(clips, sampling_rate, return_tensors)
        texts = [text] if isinstance(text, str) else list(text)
        prompts = [self._split(t, add_special_tokens) for t in self._placed(texts, len(clips))]
        return self._batch(prompts, clips, sampling_rate, padding, return_tensors)

    def _placed(self, texts: list[str], clips: int) -> list[str]:
        found = sum(t.count(self.audio_token) for t in texts)
        if found == 0 and clips and clips % len(texts) == 0:
            return [self.audio_token * (clips // len(texts)) + t for t in texts]
        if found != clips:
            raise PromptError(
                f"the text holds {found} {self.audio_token} placeholder(s), {clips} clip(s) were given",
                f"write {self.audio_token} once for each clip",
            )
        return texts

    def _split(self, text: str, bos: bool) -> list[Segment]:
        segments: list[Segment] = []
        for index, part in enumerate(text.split(self.audio_token)):
            if index:
                segments.append(Clip())
            if part and bos:
                segments.append(Mark("bos"))
                bos = False
            if part:
                segments.append(Text(part, special=True))
        return segments

    # -- conversations -----------------------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        tokenize: bool = False,
        return_dict: bool = True,
        return_tensors: str = "pt",
        sampling_rate: int | None = None,
        template: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """A conversation (or a batch of them) as a prompt.

        Messages are ``{"role": …, "content": text or parts}``, parts ``{"type": "text", "text": …}`` or
        ``{"type": "audio", "audio" | "path": samples, Waveform or path}``. Words in a message never become control
        tokens or placeholders.

        Args:
            conversation: messages.
            chat_template: a Jinja template instead of GAMA's prompt.
            tokenize: whether to return model inputs; otherwise the prompt as text with placeholders.
            return_dict: whether to return everything or ``input_ids`` alone.
            template: name of a prompt template, instead of the processor's.
        """
        batched = bool(conversation) and not isinstance(conversation[0], dict)
        conversations = list(conversation) if batched else [conversation]
        jinja = chat_template or self.chat_template
        clips = [clip for messages in conversations for clip in _audio_parts(messages)]
        prompts = [
            self.render_template(messages, jinja, add_generation_prompt)
            if jinja
            else render([_turn(m) for m in messages], template or self.template)
            for messages in conversations
        ]
        if not tokenize:
            texts = [plain(p) for p in prompts]
            return texts if batched else texts[0]
        inputs = self._batch(prompts, clips, sampling_rate, True, return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def render_template(self, messages: Sequence[dict[str, Any]], template: str, generation: bool) -> list[Segment]:
        """Messages through a Jinja template, with what people wrote kept apart from the template's special tokens.

        Args:
            messages: of one conversation.
            template: Jinja source.
            generation: whether the template's opening of an answer follows.
        """
        held: list[str] = []

        def hold(text: str) -> str:
            held.append(text)
            return f"\ue000{len(held) - 1}\ue001"

        shown = [{**m, "content": _flattened(m["content"], hold, self.audio_token)} for m in messages]
        special = {k: v for k, v in self.tokenizer.special_tokens_map.items() if isinstance(v, str)}
        rendered, _ = render_jinja_template(
            conversations=[shown], chat_template=template, add_generation_prompt=generation, **special
        )
        segments: list[Segment] = []
        for index, part in enumerate(_HELD.split(rendered[0])):
            segments += [Text(held[int(part)])] if index % 2 else self._split(part, bos=False)
        return join_text(segments)

    # -- ids -----------------------------------------------------------------------------------------------------------

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""
        ids: list[int] = []
        for segment in segments:
            if isinstance(segment, Clip):
                ids += [self.audio_token_id] * self.num_audio_tokens
            elif isinstance(segment, Mark):
                ids += self._mark(segment)
            else:
                ids += self.tokenizer(
                    segment.text,
                    add_special_tokens=False,
                    split_special_tokens=not segment.special,
                    verbose=False,  # the engine says itself when a prompt is too long
                )["input_ids"]
        return ids

    def _mark(self, mark: Mark) -> list[int]:
        if mark.role == "eos":
            return [self.tokenizer.eos_token_id]
        begins = self.tokenizer("", add_special_tokens=True)["input_ids"][:1]
        return begins if begins == [self.tokenizer.bos_token_id] else []

    def _batch(
        self,
        prompts: Sequence[Sequence[Segment]],
        clips: Sequence[Any],
        sampling_rate: int | None,
        padding: bool | str,
        return_tensors: str,
    ) -> BatchFeature:
        rows = [self.encode(p) for p in prompts]
        longest = max(len(r) for r in rows)
        if padding is False and any(len(r) != longest for r in rows):
            raise PromptError("prompts of different lengths need padding", "padding=True")
        fill = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        data: dict[str, Any] = {
            "input_ids": [[fill or 0] * (longest - len(r)) + r for r in rows],
            "attention_mask": [[0] * (longest - len(r)) + [1] * len(r) for r in rows],
        }
        if clips:
            data |= self.feature_extractor(list(clips), sampling_rate, return_tensors)
        return BatchFeature(data, tensor_type=return_tensors)


def _audio_parts(messages: Sequence[dict[str, Any]]) -> list[Any]:
    clips = []
    for message in messages:
        clips += [_clip_of(part) for part in _parts(message["content"]) if part["type"] == "audio"]
    return clips


def _parts(content: Any) -> list[dict[str, Any]]:
    """A message's content as parts of text and audio."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    for part in parts:
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise PromptError("a text part without text", 'write {"type": "text", "text": "…"}')
        if part.get("type") not in ("text", "audio"):
            raise PromptError(f"a message holds a part of type {part.get('type')!r}", "parts are 'text' or 'audio'")
    return parts


def _clip_of(part: dict[str, Any]) -> Any:
    for key in ("audio", "path", "array"):
        if part.get(key) is not None:
            return part[key]
    if "url" in part:
        raise AudioError(f"an audio part gives the address {part['url']!r}", "download it and give its path")
    raise PromptError("an audio part without a clip", 'write {"type": "audio", "path": "clip.wav"}')


def _turn(message: dict[str, Any]) -> Turn:
    if "role" not in message or "content" not in message:
        raise PromptError(f"a message has {sorted(message)}", "a message has 'role' and 'content'")
    parts = _parts(message["content"])
    text = "\n".join(p["text"] for p in parts if p["type"] == "text")
    return Turn(message["role"], text, sum(p["type"] == "audio" for p in parts))


def _flattened(content: Any, hold: Any, audio_token: str) -> str:
    return "".join(audio_token if p["type"] == "audio" else hold(p["text"]) for p in _parts(content))


__all__ = ["GamaFeatureExtractor", "GamaProcessor"]
