"""GamaProcessor: text and clips -> model inputs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from tokenizers import AddedToken
from transformers import ProcessorMixin
from transformers.processing_utils import AudioKwargs, ProcessingKwargs

from gama.errors import PromptError
from gama.model.clips import clips_of, waveform
from gama.model.features import GamaFeatureExtractor, GamaFeatures
from gama.model.prompts import (
    Piece,
    PromptText,
    Rendering,
    clip_of,
    conversations_of,
    is_clip,
    parts_of,
    pieces_of,
    shown,
    turn_of,
)
from gama.model.remote import write_remote_code
from gama.prompt import AUDIO_PLACEHOLDER, OWN_PROMPT, Clip, Mark, Segment, Text, jinja, render

_NOT_HERE = (
    "text_pair",
    "text_target",
    "text_pair_target",
    "stride",
    "is_split_into_words",
    "return_overflowing_tokens",
)
"""Arguments of tokenizers that a prompt with clips has no use for."""


class GamaAudioKwargs(TypedDict, total=False):
    """What is passed on to the feature extractor; ``max_length``, ``padding`` and ``truncation`` are the text's."""

    sampling_rate: int | None
    device: Any
    return_tensors: Any


# made by a call: transformers reads the annotations, which must not be strings
_typed_dict: Any = TypedDict
GamaProcessorKwargs = _typed_dict(
    "GamaProcessorKwargs", {**ProcessingKwargs.__annotations__, "audio_kwargs": GamaAudioKwargs}, total=False
)
"""What the processor takes beside text and clips."""

GamaProcessorKwargs._defaults = {
    "text_kwargs": {"padding": True, "return_tensors": "pt"},
    "audio_kwargs": {"return_tensors": "pt"},
}


@dataclass(frozen=True)
class _Row:
    """A prompt as ids, and from and to which character each of them stands."""

    ids: list[int]
    offsets: list[tuple[int, int]]

    def __add__(self, other: _Row) -> _Row:
        return _Row(self.ids + other.ids, self.offsets + other.offsets)

    def __getitem__(self, part: slice) -> _Row:
        return _Row(self.ids[part], self.offsets[part])


class GamaProcessor(ProcessorMixin):
    """Text and clips to what the model reads.

    Args:
        feature_extractor: see :class:`GamaFeatureExtractor`.
        tokenizer: the language model's. ``audio_token`` is added to it where the placeholder is the first id beyond
            it, so that no other token gets that id. It pads on the left.
        chat_template: a Jinja template; None for GAMA's own prompt (``template``).
        audio_token: how a clip is written in ``text``.
        audio_token_id: the model's ``config.audio_token_id``; by default the tokenizer's id of ``audio_token``.
        num_audio_tokens: the model's ``config.num_audio_tokens``.
        template: name of the prompt template of :mod:`gama.prompt`.

    Raises:
        PromptError: for an unknown template, and where the padding token is the placeholder.
    """

    valid_processor_kwargs = GamaProcessorKwargs

    def __init__(
        self,
        feature_extractor: GamaFeatureExtractor | None = None,
        tokenizer: Any = None,
        chat_template: str | dict[str, str] | None = None,
        audio_token: str = AUDIO_PLACEHOLDER,
        audio_token_id: int | None = None,
        num_audio_tokens: int = 96,
        template: str = "gama",
    ) -> None:
        if not isinstance(audio_token, str):
            raise TypeError(f"audio_token is {str(audio_token)[:60]}, text was expected")
        super().__init__(feature_extractor or GamaFeatureExtractor(), tokenizer, chat_template=chat_template)
        self.audio_token = audio_token
        self.audio_token_id = _placeholder(tokenizer, audio_token, audio_token_id)
        self.num_audio_tokens = num_audio_tokens
        self.template = template
        tokenizer.padding_side = "left"
        if chat_template is None:
            self.chat_template = self._own_template()
        self._check_padding()

    def _own_template(self) -> str:
        return jinja(self.template, self.audio_token, bos=bool(self._begins()))

    @property
    def has_own_prompt(self) -> bool:
        """Whether conversations are written as GAMA's own prompt, and not by another chat template."""
        return isinstance(self.chat_template, str) and self.chat_template.startswith(OWN_PROMPT)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", *self.feature_extractor.model_input_names]

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        if self.has_own_prompt:
            self.chat_template = self._own_template()  # ``template`` may have been changed
        if push_to_hub:  # what is pushed has to be whole before
            return self._pushed(save_directory, **kwargs)
        files = super().save_pretrained(save_directory, **kwargs)
        write_remote_code(save_directory)
        return files

    def _pushed(self, folder: Any, **kwargs: Any) -> Any:
        files = self.save_pretrained(folder)
        self.push_to_hub(kwargs.pop("repo_id", Path(folder).name), **kwargs)
        return files

    # -- text with placeholders --------------------------------------------------------------------------------------

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> GamaFeatures:
        """Text with ``<audio>`` placeholders and the clips they stand for.

        Args:
            text: one prompt or a batch. Without any placeholder, each prompt's share of the clips goes in front.
            audio: clips in reading order over the batch: samples, Waveforms, paths, what an Audio column of datasets
                gives, or lists of these per prompt. An array (C, N) or (N, C) for one placeholder is one clip.
            **kwargs: of :class:`transformers.processing_utils.ProcessingKwargs`, flat or as ``text_kwargs`` and
                ``audio_kwargs``: ``sampling_rate`` of given samples in Hz (they are resampled), ``padding``,
                ``padding_side``, ``max_length``, ``truncation``, ``add_special_tokens``, ``return_tensors`` …

        Returns:
            ``input_ids`` and ``attention_mask`` (B, T), padded on the left before everything, and the features
            (clips, 1024, 128) where clips are given.

        Raises:
            PromptError: where placeholders and clips do not match, and for unknown arguments.
        """
        for name in ("images", "videos"):
            if kwargs.pop(name, None) is not None:
                raise PromptError(f"{name} were given; the model reads text and audio")
        _check_known(kwargs)
        given = self._merge_kwargs(GamaProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        texts = _texts(text)
        if texts is None:
            if audio is None:
                raise PromptError("neither text nor a clip was given", "give text=…, audio=… or both")
            return self.feature_extractor(audio, **given["audio_kwargs"])
        found = sum(t.count(self.audio_token) if not _pieces(t) else _clips(t) for t in texts)
        clips = [] if audio is None else clips_of(audio, found or len(texts))
        rows = self._rows(texts, found, len(clips), given["text_kwargs"].pop("add_special_tokens", True) is not False)
        flags = ("return_mm_token_type_ids", "return_text_replacement_offsets")
        given["text_kwargs"] |= {name: given[name] for name in flags if given.get(name)}
        options = _TextOptions.of(given["text_kwargs"], self.tokenizer)
        data = self._padded([self._cut(row, options) for row in rows], options)
        tensors = options.return_tensors
        if clips:
            data |= self.feature_extractor(clips, **given["audio_kwargs"])
        return GamaFeatures(data, tensor_type=tensors)

    def _rows(self, texts: Sequence[str], found: int, clips: int, special: bool) -> list[_Row]:
        ahead = 0
        if found == 0 and clips and clips % len(texts) == 0:
            ahead = clips // len(texts)
        elif found != clips:
            raise PromptError(
                f"the number of {self.audio_token} tokens in the prompts should be the same as the number of clips: "
                f"the text holds {found} {self.audio_token} placeholder(s), {clips} clip(s) were given",
                f"write {self.audio_token} once for each clip",
            )
        return [self._encoded(self._split(text, special, ahead)) for text in texts]

    def _split(self, text: str, special: bool, ahead: int = 0) -> list[Piece]:
        """A prompt's pieces, with ``ahead`` clips and the beginning in front of its text where they are not there."""
        if known := _pieces(text):
            return [Piece(Clip(), 0, 0)] * ahead + list(known)
        pieces = [Piece(Clip(), 0, 0)] * ahead + pieces_of(text, self.audio_token)
        first = next((i for i, piece in enumerate(pieces) if not isinstance(piece.segment, Clip)), len(pieces))
        begin = pieces[first].begin if first < len(pieces) else len(text)
        bos = self.tokenizer.bos_token
        if first < len(pieces) and bos and self._begins() and text.startswith(bos, begin):
            rest = Piece(
                Text(text[begin + len(bos) : pieces[first].end], special=True), begin + len(bos), pieces[first].end
            )
            pieces[first : first + 1] = [
                Piece(Mark("bos"), begin, begin + len(bos)),
                *([rest] if rest.end > rest.begin else []),
            ]
        elif special:
            pieces.insert(first, Piece(Mark("bos"), begin, begin))
        return pieces

    # -- conversations -----------------------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        tools: list[Any] | None = None,
        documents: list[dict[str, str]] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = "auto",
        return_dict: bool | None = None,
        load_audio_from_video: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        template: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """A conversation (or a batch of them) as a prompt, as transformers' processors write it.

        Messages are ``{"role": …, "content": text or parts}``, parts ``{"type": "text", "text": …}`` or
        ``{"type": "audio", "audio" | "path" | "url" | "audio_url": …}`` with a clip in any form that a processor
        takes; addresses are not fetched. Without ``tokenize`` a part needs no clip. Words in a message never become
        control tokens or placeholders.

        Args:
            conversation: messages.
            chat_template: a Jinja template, or the name of one of the processor's.
            tools: for a chat template; GAMA's own prompt has no place for them.
            documents: likewise.
            add_generation_prompt: whether what opens an answer follows. Where it is not said: after a question.
            continue_final_message: whether the last message is to be continued.
            return_assistant_tokens_mask: also give ``assistant_masks``: 1 where an assistant wrote.
            tokenize: whether to return model inputs; otherwise the prompt as text with placeholders.
            return_tensors: ``pt`` where it is not said, ``np`` or None.
            return_dict: whether to return everything or ``input_ids`` alone. Where it is not said: everything, unless
                ``return_tensors`` is given, as transformers has it.
            load_audio_from_video: the model reads no video.
            processor_kwargs: for the processor.
            template: name of a prompt template of :mod:`gama.prompt`, instead of the processor's.
            **kwargs: variables of the chat template, or what ``processor_kwargs`` may have.

        Raises:
            PromptError: for messages, parts or arguments that have no meaning here.
            AudioError: for clips that cannot be read.
        """
        if load_audio_from_video:
            raise PromptError("load_audio_from_video was given; the model reads text and audio")
        kwargs.pop("sanitize_control_tokens", None)  # they always are
        if return_dict is None:
            return_dict = return_tensors == "auto"
        jinja_template = None if template is not None else self._jinja(chat_template)
        variables, options = _divided(kwargs, jinja_template, processor_kwargs)
        if continue_final_message and (add_generation_prompt or return_assistant_tokens_mask):
            other = "add_generation_prompt" if add_generation_prompt else "return_assistant_tokens_mask"
            raise PromptError(f"continue_final_message and {other} are not compatible", "give one of them")
        conversations, batched = conversations_of(conversation)
        opened = [
            _asks(messages) and not continue_final_message and not return_assistant_tokens_mask
            if add_generation_prompt is None
            else add_generation_prompt
            for messages in conversations
        ]
        if jinja_template is None:
            if tools or documents:
                raise PromptError("GAMA's own prompt has no place for tools or documents", "give chat_template=…")
            prompts = [
                self._own(messages, template, opens, bool(continue_final_message))
                for messages, opens in zip(conversations, opened, strict=True)
            ]
        else:
            settings = {
                "tools": tools,
                "documents": documents,
                "continue_final_message": continue_final_message,
                "return_assistant_tokens_mask": return_assistant_tokens_mask,
            }
            prompts = [
                self._rendering(jinja_template, variables, settings | {"add_generation_prompt": opens}).prompt(messages)
                for messages, opens in zip(conversations, opened, strict=True)
            ]
        if not tokenize:
            return prompts if batched else prompts[0]
        inputs = self._tokenized(prompts, conversations, options, return_tensors, return_assistant_tokens_mask)
        return inputs if return_dict else inputs["input_ids"]

    def _tokenized(
        self,
        prompts: list[PromptText],
        conversations: list[list[dict[str, Any]]],
        options: dict[str, Any],
        return_tensors: str | None,
        masks: bool,
    ) -> GamaFeatures:
        rate, nested = options.pop("sampling_rate", None), dict(options.pop("audio_kwargs", {}))
        rate = nested.pop("sampling_rate", None) or rate
        known = self.feature_extractor.sampling_rate
        clips = [waveform(clip, own or rate, known) for messages in conversations for clip, own in _clips_of(messages)]
        if clips:
            options |= {"sampling_rate": known}  # what was given has been resampled
        if nested:
            options["audio_kwargs"] = nested
        if return_tensors != "auto":
            options["return_tensors"] = return_tensors
        if masks:
            options["return_offsets_mapping"] = True
        inputs = self(text=prompts, audio=clips or None, **options)
        if masks:
            _add_masks(inputs, prompts)
        return inputs

    def _jinja(self, given: str | None) -> str | None:
        """The chat template to use; None for GAMA's own prompt."""
        own: Any = self.chat_template
        if given is not None:
            chosen = own[given] if isinstance(own, dict) and given in own else given
        elif isinstance(own, dict):
            if "default" not in own:
                raise PromptError(
                    "the processor has several chat templates and none is named 'default'",
                    f"chat_template= one of {', '.join(sorted(own))}",
                )
            chosen = own["default"]
        else:
            chosen = own
        return None if chosen is None or chosen.startswith(OWN_PROMPT) else chosen

    def _own(
        self, messages: Sequence[Mapping[str, Any]], template: str | None, answered: bool, open_end: bool
    ) -> PromptText:
        segments = render(
            [turn_of(m) for m in messages], template or self.template, answered=answered, open_end=open_end
        )
        tokenizer = self.tokenizer
        marks = {"bos": tokenizer.bos_token if self._begins() else "", "eos": tokenizer.eos_token or ""}
        pieces = shown(segments, self.audio_token, marks)
        text = "".join(_shown(piece.segment, self.audio_token, marks) for piece in pieces)
        return PromptText(text, pieces, _answers(messages, pieces))

    def _rendering(self, template: str, variables: Mapping[str, Any], settings: Mapping[str, Any]) -> Rendering:
        added = [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]
        special = {k: v for k, v in self.tokenizer.special_tokens_map.items() if isinstance(v, str)}
        control = tuple(dict.fromkeys([self.audio_token, *added, *special.values()]))
        return Rendering(template, self.audio_token, control, special | dict(variables), settings)

    def render_template(
        self, messages: Sequence[Mapping[str, Any]], template: str | None = None, generation: bool = True
    ) -> list[Segment]:
        """Messages through a Jinja template, with what people wrote kept apart from the template's special tokens.

        Args:
            messages: of one conversation.
            template: Jinja source; the processor's own chat template where there is none.
            generation: whether the template's opening of an answer follows.
        """
        source = template or self._jinja(None)
        if source is None:
            raise PromptError("the processor has no chat template beside GAMA's own prompt", "give one")
        conversations, _ = conversations_of([messages])
        settings = {"add_generation_prompt": generation}
        return [piece.segment for piece in self._rendering(source, {}, settings).prompt(conversations[0]).pieces]

    # -- ids -----------------------------------------------------------------------------------------------------------

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Segments -> ids, ``num_audio_tokens`` placeholders for each clip."""
        return self._encoded([Piece(segment, 0, 0) for segment in segments]).ids

    def _encoded(self, pieces: Sequence[Piece]) -> _Row:
        row = _Row([], [])
        for piece in pieces:
            row += self._ids(piece)
        return row

    def _ids(self, piece: Piece) -> _Row:
        segment = piece.segment
        if isinstance(segment, Clip):
            # between two characters: no text of anybody's
            return _Row(
                [self.audio_token_id] * self.num_audio_tokens, [(piece.begin, piece.begin)] * self.num_audio_tokens
            )
        if isinstance(segment, Mark):
            ids = [self.tokenizer.eos_token_id] if segment.role == "eos" else self._begins()
            return _Row(ids, [(piece.begin, piece.end)] * len(ids))
        encoded = self.tokenizer(
            segment.text,
            add_special_tokens=False,
            split_special_tokens=not segment.special,
            return_offsets_mapping=self.tokenizer.is_fast,
            verbose=False,  # the engine says itself when a prompt is too long
        )
        ids = encoded["input_ids"]
        offsets = encoded.get("offset_mapping") or [(0, len(segment.text))] * len(ids)
        return _Row(ids, [(piece.begin + begin, piece.begin + end) for begin, end in offsets])

    def _begins(self) -> list[int]:
        """What the tokenizer begins a text with."""
        begins = self.tokenizer("", add_special_tokens=True)["input_ids"][:1]
        return begins if begins == [self.tokenizer.bos_token_id] else []

    def _cut(self, row: _Row, options: _TextOptions) -> _Row:
        limit = options.max_length
        if not options.truncation or limit is None or len(row.ids) <= limit:
            return row
        cut = row[len(row.ids) - limit :] if self.tokenizer.truncation_side == "left" else row[:limit]
        if cut.ids.count(self.audio_token_id) != row.ids.count(self.audio_token_id):
            raise PromptError(
                f"truncation to {limit} tokens would cut a clip's {self.num_audio_tokens} placeholders",
                "give a larger max_length",
            )
        return cut

    def _padded(self, rows: Sequence[_Row], options: _TextOptions) -> dict[str, Any]:
        widths = [len(row.ids) for row in rows]
        width = options.width(widths)
        if width is None and options.return_tensors and len(set(widths)) > 1:
            raise PromptError("prompts of different lengths need padding", "padding=True")
        gaps = [max(0, (width or 0) - n) for n in widths]
        if any(gaps):
            self._check_padding()

        def filled(values: Callable[[_Row], list[Any]], fill: Any) -> list[list[Any]]:
            parts = [(values(row), [fill] * gap) for row, gap in zip(rows, gaps, strict=True)]
            return [gap + own if options.padding_side == "left" else own + gap for own, gap in parts]

        special = set(self.tokenizer.all_special_ids) | {self.audio_token_id}
        audio = self.audio_token_id
        data: dict[str, Any] = {"input_ids": filled(lambda row: row.ids, self._fill())}
        wanted: dict[str, tuple[Callable[[_Row], list[Any]], Any]] = {
            "attention_mask": (lambda row: [1] * len(row.ids), 0),
            "token_type_ids": (lambda row: [0] * len(row.ids), 0),
            "special_tokens_mask": (lambda row: [int(i in special) for i in row.ids], 1),
            "offset_mapping": (lambda row: row.offsets, (0, 0)),
            "mm_token_type_ids": (lambda row: [3 * (i == audio) for i in row.ids], 0),  # 3 is audio in transformers
        }
        data |= {name: filled(*wanted[name]) for name in options.outputs if name in wanted}
        if "length" in options.outputs:
            data["length"] = widths
        return data

    def _fill(self) -> int:
        tokenizer = self.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)

    def _check_padding(self) -> None:
        if self.tokenizer.pad_token_id == self.audio_token_id:
            raise PromptError(
                f"the padding token {self.tokenizer.pad_token!r} has the id {self.audio_token_id} of the placeholder "
                f"{self.audio_token}",
                "give the tokenizer another padding token",
            )

    # -- what other programs ask of a processor ------------------------------------------------------------------------

    def replace_audio_token(self, audio_inputs: Mapping[str, Any], audio_idx: int, **kwargs: Any) -> str:
        """What a placeholder in a text stands for."""
        return self.audio_token * self.num_audio_tokens


@dataclass(frozen=True)
class _TextOptions:
    """How prompts are cut and padded, and what is returned of them."""

    padding: str
    padding_side: str
    max_length: int | None
    truncation: bool
    multiple: int | None
    outputs: tuple[str, ...]
    return_tensors: str | None

    @classmethod
    def of(cls, given: Mapping[str, Any], tokenizer: Any) -> _TextOptions:
        for name in _NOT_HERE:
            if given.get(name):
                raise PromptError(f"{name}={given[name]!r} was given", "it has no meaning for prompts with clips")
        padding = given.get("padding")
        padding = {True: "longest", False: "do_not_pad", None: "do_not_pad"}.get(
            padding, str(getattr(padding, "value", padding))
        )
        if padding not in ("longest", "max_length", "do_not_pad"):
            raise PromptError(f"padding={padding!r} was given", "it is True, False, 'longest' or 'max_length'")
        truncation = given.get("truncation")
        truncation = str(getattr(truncation, "value", truncation)) not in ("False", "None", "do_not_truncate")
        limit = given.get("max_length")
        if limit is None and (truncation or padding == "max_length") and tokenizer.model_max_length < 10**9:
            limit = tokenizer.model_max_length
        if limit is None and padding == "max_length":
            raise PromptError("padding='max_length' was given without max_length", "give max_length=…")
        outputs = [] if given.get("return_attention_mask") is False else ["attention_mask"]
        names = {
            "return_token_type_ids": "token_type_ids",
            "return_special_tokens_mask": "special_tokens_mask",
            "return_offsets_mapping": "offset_mapping",
            "return_mm_token_type_ids": "mm_token_type_ids",
            "return_length": "length",
        }
        outputs += [output for name, output in names.items() if given.get(name)]
        side = given.get("padding_side") or tokenizer.padding_side
        multiple, tensors = given.get("pad_to_multiple_of"), given.get("return_tensors")
        return cls(padding, side, limit, truncation, multiple, tuple(outputs), getattr(tensors, "value", tensors))

    def width(self, widths: Sequence[int]) -> int | None:
        """To how many ids each row is padded; None where none is."""
        if self.padding == "do_not_pad":
            return None
        width = max(widths) if self.padding == "longest" or self.max_length is None else self.max_length
        return width if not self.multiple else -(-width // self.multiple) * self.multiple


def _placeholder(tokenizer: Any, audio_token: str, given: int | None) -> int:
    """The placeholder's id; a token of its own where it is the first beyond the tokenizer."""
    vocabulary = tokenizer.get_vocab()
    if audio_token not in vocabulary and given in (None, len(tokenizer)):
        tokenizer.add_tokens([AddedToken(audio_token, special=True, normalized=False)], special_tokens=True)
        vocabulary = tokenizer.get_vocab()
    return vocabulary[audio_token] if given is None else given


def _texts(text: Any) -> list[str] | None:
    if text is None:
        return None
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(isinstance(t, str) for t in texts):
        raise PromptError("`text` must be a string or a list of strings", "give at least one prompt")
    return texts


def _pieces(text: str) -> tuple[Piece, ...]:
    return text.pieces if isinstance(text, PromptText) else ()


def _clips(text: str) -> int:
    return sum(isinstance(piece.segment, Clip) for piece in _pieces(text))


def _shown(segment: Segment, audio_token: str, marks: Mapping[str, str]) -> str:
    if isinstance(segment, Clip):
        return audio_token
    return marks[segment.role] if isinstance(segment, Mark) else segment.text


def _answers(messages: Sequence[Mapping[str, Any]], pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Characters that assistants wrote in GAMA's own prompt, the token that ends an answer among them."""
    texts = [turn_of(m).text for m in messages if m["role"] == "assistant"]
    spans, ends = [], [p for p in pieces if isinstance(p.segment, Mark) and p.segment.role == "eos"]
    for text, end in zip(texts, ends, strict=False):
        spans.append((end.begin - len(text), end.end))
    return spans


def _clips_of(messages: Sequence[Mapping[str, Any]]) -> list[tuple[Any, int | None]]:
    return [clip_of(part) for message in messages for part in parts_of(message) if is_clip(part)]


def _add_masks(inputs: GamaFeatures, prompts: Sequence[PromptText]) -> None:
    """Mark the ids of what assistants wrote."""
    offsets = inputs.pop("offset_mapping")
    rows = [
        [
            int(any(begin < last and first < end for first, last in prompt.answers))
            for begin, end in (row.tolist() if hasattr(row, "tolist") else row)
        ]
        for row, prompt in zip(offsets, prompts, strict=True)
    ]
    ids = inputs["input_ids"]
    inputs["assistant_masks"] = (
        ids.new_tensor(rows)
        if isinstance(ids, torch.Tensor)
        else type(ids)(rows)
        if isinstance(ids, list)
        else _like(ids, rows)
    )


def _like(ids: Any, rows: list[list[int]]) -> Any:
    import numpy as np

    return np.asarray(rows)


def _known() -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Names of arguments by kind of input, and of all of them."""
    hints = GamaProcessorKwargs.__annotations__
    kinds = {k: frozenset(getattr(v, "__annotations__", {})) for k, v in hints.items() if k.endswith("_kwargs")}
    kinds["audio_kwargs"] |= frozenset(AudioKwargs.__annotations__)
    return kinds, frozenset(hints).union({"common_kwargs"}, *kinds.values())


def _check_known(kwargs: Mapping[str, Any]) -> None:
    kinds, flat = _known()
    for name, value in kwargs.items():
        if name not in flat:
            raise _unknown(name, flat)
        if name in kinds:
            for inner in value or {}:
                if inner not in kinds[name]:
                    raise _unknown(inner, kinds[name], f" in {name}")


def _unknown(name: str, known: frozenset[str], where: str = "") -> PromptError:
    close = difflib.get_close_matches(name, known, 1)
    return PromptError(
        f"unknown argument {name!r}{where}",
        f"did you mean {close[0]!r}?" if close else "see transformers' ProcessingKwargs for those that there are",
    )


def _divided(
    kwargs: Mapping[str, Any], template: str | None, given: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is for a chat template, and what for the processor."""
    _, known = _known()
    variables = {k: v for k, v in kwargs.items() if template is not None and k in template}
    options = {k: v for k, v in kwargs.items() if k not in variables}
    for name in options:
        if name not in known:
            raise _unknown(name, known)
    return variables, {**(given or {}), **options}


def _asks(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation ends with somebody else's message than the model's."""
    return bool(messages) and messages[-1].get("role") != "assistant"


__all__ = ["GamaFeatureExtractor", "GamaProcessor"]
