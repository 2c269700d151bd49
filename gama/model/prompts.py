"""Conversations -> prompts as text, in which what people wrote stays apart from what the template wrote."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gama.errors import PromptError
from gama.model.bounded_jinja import render_jinja_template
from gama.prompt import Clip, Mark, Segment, Text, Turn

_HELD = re.compile("\ue000(\\d+)\ue001")  # words that are held back while a chat template is rendered
_HOLDERS = ("\ue000", "\ue001")
_PROBE = "gamaprobe"
_CLIP_KEYS = ("audio", "path", "url", "audio_url", "array")
_AUDIO_TYPES = ("audio", "audio_url")


@dataclass(frozen=True)
class Piece:
    """A segment and the characters of the prompt it stands for.

    Attributes:
        begin, end: in the prompt as text; equal where the text does not show it.
    """

    segment: Segment
    begin: int
    end: int


class PromptText(str):
    """A prompt as text that knows what was written by the template, and what by people.

    Attributes:
        pieces: what it consists of; empty for a string that was merely pickled or copied.
        answers: characters from and to which an assistant wrote.
    """

    pieces: tuple[Piece, ...]
    answers: tuple[tuple[int, int], ...]

    def __new__(cls, text: str, pieces: Sequence[Piece] = (), answers: Sequence[tuple[int, int]] = ()) -> PromptText:
        made = super().__new__(cls, text)
        made.pieces, made.answers = tuple(pieces), tuple(answers)
        return made


# -- messages ----------------------------------------------------------------------------------------------------------


def conversations_of(given: Any) -> tuple[list[list[dict[str, Any]]], bool]:
    """One conversation or a batch of them, as fresh dicts; and whether it was a batch.

    Messages may be dicts, dataclasses, pydantic models or other objects with ``role`` and ``content``; a conversation
    may be an object with ``messages``. Keys whose value is None are left out.

    Raises:
        PromptError: where there is no message.
    """
    whole = getattr(given, "messages", given)
    if not isinstance(whole, (list, tuple)) or not whole:
        raise PromptError("a conversation without a message was given", 'give [{"role": "user", "content": …}]')
    batched = isinstance(whole[0], (list, tuple)) or hasattr(whole[0], "messages")
    rows: list[Any] = [getattr(row, "messages", row) for row in whole] if batched else [whole]
    return [[_message(message) for message in row] for row in rows], batched


def _message(given: Any) -> dict[str, Any]:
    message = {key: value for key, value in _fields(given).items() if value is not None}
    if "role" not in message:
        raise PromptError(f"a message has {sorted(message)}", "a message has 'role' and 'content'")
    if isinstance(message.get("content"), (list, tuple)):
        message["content"] = [_part(part) for part in message["content"]]
    return message


def _fields(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    if hasattr(given, "model_dump"):
        return dict(given.model_dump())
    if hasattr(given, "__dict__"):
        return dict(vars(given))
    raise PromptError(f"a message of type {type(given).__name__} was given", "a message is a dict or an object")


def _part(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        return {"type": "text", "text": given}
    part = {key: value for key, value in _fields(given).items() if value is not None or key == "text"}
    if part.get("type") == "image_url" and "image_url" in part:  # as transformers reads it
        address = part["image_url"]
        return {"type": "image", "url": address.get("url", "") if isinstance(address, Mapping) else address}
    return part


def parts_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message's content as parts of text and audio.

    Raises:
        PromptError: for parts of other types, and for a text part without text.
    """
    content = message.get("content", "")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    for part in parts:
        if part.get("type") == "text" and not isinstance(part.get("text"), str):
            raise PromptError("a text part without text", 'write {"type": "text", "text": "…"}')
        if part.get("type") not in ("text", *_AUDIO_TYPES):
            raise PromptError(f"a message holds a part of type {part.get('type')!r}", "parts are 'text' or 'audio'")
    return parts


def is_clip(part: Mapping[str, Any]) -> bool:
    return part.get("type") in _AUDIO_TYPES


def clip_of(part: Mapping[str, Any]) -> tuple[Any, int | None]:
    """The clip of an audio part, and its rate in Hz where the part tells it.

    Raises:
        PromptError: where there is none.
    """
    for key in _CLIP_KEYS:
        clip = part.get(key)
        if key == "audio_url" and isinstance(clip, Mapping) and "url" in clip:
            clip = clip["url"]
        if clip is not None:
            return clip, part.get("sampling_rate")
    raise PromptError("an audio part without a clip", 'write {"type": "audio", "path": "clip.wav"}')


def turn_of(message: Mapping[str, Any]) -> Turn:
    """A message as GAMA's own prompt knows it: a role, text and a number of clips."""
    if "content" not in message:
        raise PromptError(f"a message has {sorted(message)}", "a message has 'role' and 'content'")
    parts = parts_of(message)
    text = "\n".join(p["text"] for p in parts if p["type"] == "text")
    return Turn(message["role"], text, sum(map(is_clip, parts)))


# -- Jinja -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rendering:
    """What a chat template is rendered with.

    Attributes:
        template: Jinja source.
        audio_token: what a clip is in the rendered text.
        control: control tokens, which a person's words never become.
        variables: of the template, the tokenizer's special tokens among them.
        options: of ``render_jinja_template``.
    """

    template: str
    audio_token: str
    control: tuple[str, ...]
    variables: Mapping[str, Any]
    options: Mapping[str, Any]

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> PromptText:
        """The messages through the template.

        Raises:
            PromptError: where the template leaves clips out.
        """
        held: list[str] = []
        shown = [self._shown(message, held) for message in messages]
        rendered, spans = render_jinja_template(
            conversations=[shown], chat_template=self.template, **dict(self.options), **dict(self.variables)
        )
        return self._prompt(rendered[0], held, spans[0] if spans else [], _clips_in(messages))

    def reads_parts(self) -> bool:
        """Whether the template reads content that is a list of parts; otherwise it is given one string.

        Found by trying: a template that does not know parts writes the list as Python shows it, or leaves it out.
        """
        as_parts = self._tried([{"type": "text", "text": _PROBE}])
        if as_parts is not None and _PROBE in as_parts and "'type'" not in as_parts and '"type"' not in as_parts:
            return True
        as_text = self._tried(_PROBE)
        return as_text is None or _PROBE not in as_text

    def _tried(self, content: Any) -> str | None:
        options = {k: v for k, v in self.options.items() if k in ("tools", "documents")}
        conversation = [{"role": "user", "content": content}]
        try:
            rendered, _ = render_jinja_template(
                conversations=[conversation], chat_template=self.template, **options, **dict(self.variables)
            )
        except Exception:  # a template may raise whatever it likes; then it is not understood this way
            return None
        return str(rendered[0]).lower()  # a template may change the case

    def _shown(self, message: Mapping[str, Any], held: list[str]) -> dict[str, Any]:
        """A message as the template sees it: without samples, with control tokens held back."""
        shown = {k: v if k == "role" else self._harmless(v, held) for k, v in message.items() if k != "content"}
        content = message.get("content")
        if content is None:
            return shown
        if isinstance(content, str):
            return {**shown, "content": self._harmless(content, held)}
        parts = [_without_samples(part) for part in content]
        if self.reads_parts():
            return {**shown, "content": [{**self._harmless(p, held), "type": p.get("type")} for p in parts]}
        texts = [self.audio_token if is_clip(p) else self._harmless(p["text"], held) for p in parts_of(message)]
        return {**shown, "content": "".join(texts)}

    def _harmless(self, value: Any, held: list[str]) -> Any:
        if isinstance(value, str):
            return _hold(value, self.control, held)
        if isinstance(value, Mapping):
            return {key: self._harmless(item, held) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._harmless(item, held) for item in value]
        return value

    def _prompt(self, rendered: str, held: list[str], spans: Iterable[tuple[int, int]], clips: int) -> PromptText:
        text, protected, places = _restored(rendered, held)
        pieces = _pieces(text, protected, self.audio_token, self.control)
        found = sum(isinstance(piece.segment, Clip) for piece in pieces)
        if found != clips:
            raise PromptError(
                f"the chat template writes {found} {self.audio_token} for {clips} clip(s)",
                f"it has to write {self.audio_token} for each part of type 'audio'",
            )
        return PromptText(text, pieces, [(places[begin], places[end]) for begin, end in spans])


def _clips_in(messages: Sequence[Mapping[str, Any]]) -> int:
    contents = (message.get("content") for message in messages)
    return sum(is_clip(part) for content in contents if isinstance(content, list) for part in content)


def _without_samples(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part for a template, which asks at most whether a clip is there."""
    if not is_clip(part):
        return dict(part)
    return {k: v if isinstance(v, (str, int, float)) else "" for k, v in part.items()}


# -- words that look like control tokens -------------------------------------------------------------------------------


def _hold(text: str, control: tuple[str, ...], held: list[str]) -> str:
    """A text whose control tokens are held back, and at its ends whatever could become one beside other words."""
    spans = [match.span() for match in _any_of((*control, *_HOLDERS)).finditer(text)]
    prefixes, suffixes, longest = _edges(control)
    lengths = range(min(longest - 1, len(text)), 0, -1)
    if head := next((n for n in lengths if text[:n] in suffixes), 0):
        spans.append((0, head))
    if tail := next((n for n in lengths if text[-n:] in prefixes), 0):
        spans.append((len(text) - tail, len(text)))
    if len(text) < longest and any(text in word for word in control):
        spans.append((0, len(text)))
    out, position = [], 0
    for begin, end in _merged(spans):
        held.append(text[begin:end])
        out += [text[position:begin], f"\ue000{len(held) - 1}\ue001"]
        position = end
    return "".join([*out, text[position:]])


@lru_cache(maxsize=64)
def _edges(words: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str], int]:
    """How words begin and end, short of being whole, and the longest word."""
    prefixes = frozenset(word[:n] for word in words for n in range(1, len(word)))
    suffixes = frozenset(word[n:] for word in words for n in range(1, len(word)))
    return prefixes, suffixes, max(map(len, words), default=0)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


@lru_cache(maxsize=64)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    ordered = sorted({word for word in words if word}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")


def _restored(rendered: str, held: Sequence[str]) -> tuple[str, list[tuple[int, int]], list[int]]:
    """The rendered text with what was held back, where that lies, and each character's new place."""
    out: list[str] = []
    spans: list[tuple[int, int]] = []
    places: list[int] = []
    length = position = 0
    for match in _HELD.finditer(rendered):
        before = match.start() - position
        places += range(length, length + before)
        length += before
        words = held[int(match[1])]
        places += [length] * (match.end() - match.start())
        out += [rendered[position : match.start()], words]
        spans.append((length, length + len(words)))
        length += len(words)
        position = match.end()
    rest = rendered[position:]
    places += range(length, length + len(rest) + 1)
    return "".join([*out, rest]), spans, places


def _pieces(text: str, protected: Sequence[tuple[int, int]], audio_token: str, control: tuple[str, ...]) -> list[Piece]:
    """Clips, text of the template and, apart from it, people's words that look like control tokens."""
    pieces: list[Piece] = []
    position = 0

    def add(segment: Segment | None, begin: int, end: int) -> None:
        nonlocal position
        if begin > position:
            pieces.append(Piece(Text(text[position:begin], special=True), position, begin))
        if segment is not None:
            pieces.append(Piece(segment, begin, end))
        position = end

    for match in _any_of((*control, audio_token)).finditer(text):
        begin, end = match.span()
        if any(begin < stop and start < end for start, stop in protected):
            add(Text(match[0]), begin, end)
        elif match[0] == audio_token:
            add(Clip(), begin, end)
    add(None, len(text), len(text))
    return pieces


def pieces_of(text: str, audio_token: str) -> list[Piece]:
    """A string that a programmer wrote: its control tokens are meant."""
    return _pieces(text, [], audio_token, ())


def shown(segments: Sequence[Segment], audio_token: str, marks: Mapping[str, str]) -> list[Piece]:
    """Segments with their places in the text that shows them.

    Args:
        segments: of a prompt.
        audio_token: how a clip is shown.
        marks: how the beginning and the end are shown.
    """
    pieces, position = [], 0
    for segment in segments:
        if isinstance(segment, Clip):
            length = len(audio_token)
        else:
            length = len(marks.get(segment.role, "")) if isinstance(segment, Mark) else len(segment.text)
        pieces.append(Piece(segment, position, position + length))
        position += length
    return pieces


__all__ = [
    "Piece",
    "PromptText",
    "Rendering",
    "clip_of",
    "conversations_of",
    "is_clip",
    "parts_of",
    "pieces_of",
    "shown",
    "turn_of",
]
