"""Templates and chat turns -> a prompt of clips, text and special tokens. No torch, no transformers.

The released prompt (original: ``templates/alpaca_short.json``) puts the clip's prefix before everything, the
beginning-of-sequence token included: ``[clip] <s> ### Instruction: … ### Response:``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gama.errors import OptionError, PromptError
from gama.text import lone_surrogate, shown

AUDIO_PLACEHOLDER = "<audio>"
SILENCE_NOTE = "(The recording is digitally silent.)"


@dataclass(frozen=True)
class Clip:
    """Where a clip's prefix goes."""


@dataclass(frozen=True)
class Text:
    """Text to tokenise.

    Attributes:
        text: the text.
        special: whether control tokens written in it (``<|im_end|>``) are meant; never for what a user typed.
    """

    text: str
    special: bool = False


@dataclass(frozen=True)
class Mark:
    """A special token by its role: beginning or end of sequence."""

    role: Literal["bos", "eos"]


Segment = Clip | Text | Mark


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: who speaks, how many clips come with it, and the words."""

    role: Literal["system", "user", "assistant"]
    text: str
    clips: int = 0


@dataclass(frozen=True)
class Template:
    """How a turn is written.

    Attributes:
        question: format with ``{instruction}``; the answer follows directly.
        system: format with ``{system}`` put before the first question.
        between: what stands between an answer and the next question.
        header: the end of ``question`` that opens the answer; it is left out where no answer is to follow.
    """

    question: str
    system: str = "{system}\n\n"
    between: str = "\n\n"
    header: str = ""

    def written(self, text: str, *, answered: bool = True, open_end: bool = False) -> str:
        """A question as it is written.

        Args:
            text: the instruction.
            answered: whether the answer's header follows.
            open_end: whether it ends with ``text`` itself, to be continued.
        """
        before, _, after = self.question.partition("{instruction}")
        return before + text + ("" if open_end else after if answered else after.removesuffix(self.header))


_RESPONSE = "### Response:\n"

TEMPLATES: dict[str, Template] = {
    "gama": Template("### Instruction:\n{instruction}\n\n" + _RESPONSE, header=_RESPONSE),
    "alpaca": Template(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{instruction}\n\n" + _RESPONSE,
        header=_RESPONSE,
    ),
    "plain": Template("{instruction}\n"),
}
"""Known templates; ``gama`` is the released one (alpaca_short)."""


def template_named(name: str) -> Template:
    """The template of that name.

    Raises:
        PromptError: for an unknown name, listing the known ones.
    """
    if name not in TEMPLATES:
        raise PromptError(f"unknown template {name!r}", f"known: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]


def instruction(question: str, *, input: str = "", silent: bool = False) -> str:
    """The instruction of one question.

    Args:
        question: what is asked.
        input: further text of a manifest row, appended as the original does.
        silent: whether the clip holds no sound at all; the model is told.

    Raises:
        PromptError: for an empty question, or one that is no text.
    """
    if not isinstance(question, str):
        raise OptionError(f"the question is {shown(question)}, text was expected")
    for text in (question, input):
        if (at := lone_surrogate(text)) is not None:
            what = f"the question holds half of a surrogate pair (\\u{ord(text[at]):04x}) at character {at + 1}"
            raise PromptError(what, "write the whole character, or take it out")
    if not question.strip():
        raise PromptError("the question is empty", "ask something, for example: what happened?")
    parts = [question.strip()]
    if input:
        parts.append(f"\n\n### Input:\n{input}")
    if silent:
        parts.append(f" {SILENCE_NOTE}")
    return "".join(parts)


def render(
    turns: Sequence[Turn], template: str = "gama", *, answered: bool = True, open_end: bool = False
) -> list[Segment]:
    """Turns -> segments, ready for the answer to follow.

    Clips of the first question come before the beginning of the text; clips of a later one right before its
    question. Answers end with the end-of-sequence token.

    Args:
        turns: the conversation.
        template: name of the template.
        answered: whether the header of an answer follows the last question.
        open_end: whether the last turn is to be continued: nothing follows its text.

    Raises:
        PromptError: when there is no question, or roles do not alternate.
    """
    form = template_named(template)
    segments: list[Segment] = []
    system = ""
    begun = False
    expected = "user"
    for index, turn in enumerate(turns):
        last = index == len(turns) - 1
        if turn.role == "system" and not begun:
            system = form.system.format(system=turn.text)
            continue
        if turn.role != expected:
            raise PromptError(f"a turn of {turn.role!r} where one of {expected!r} is expected")
        if turn.role == "assistant":
            segments.append(Text(turn.text))
            if not (last and open_end):
                segments.append(Mark("eos"))
            expected = "user"
            continue
        if begun:
            segments.append(Text(form.between))
        segments += [Clip()] * turn.clips
        if not begun:
            segments.append(Mark("bos"))
        asked = form.written(turn.text, answered=answered or not last, open_end=open_end and last)
        segments.append(Text(system + asked))
        system, begun, expected = "", True, "assistant"
    if not begun:
        raise PromptError("the conversation holds no question")
    return join_text(segments)


OWN_PROMPT = "{#- gama's own prompt -#}"
"""How a Jinja template begins that :func:`jinja` wrote."""


def jinja(template: str, audio_token: str = AUDIO_PLACEHOLDER, *, bos: bool = True) -> str:
    """The prompt as a chat template, for programs that read one from a saved folder (:func:`render` in Jinja).

    Args:
        template: name of the template.
        audio_token: what stands for a clip.
        bos: whether the tokenizer begins texts with a token.
    """
    form = template_named(template)
    before, _, after = form.question.partition("{instruction}")
    parts = {
        "AUDIO": audio_token,
        "BEFORE": before,
        "AFTER": after.removesuffix(form.header),
        "HEADER": form.header,
        "BETWEEN": form.between,
        "SYSTEM_BEFORE": form.system.partition("{system}")[0],
        "SYSTEM_AFTER": form.system.partition("{system}")[2],
    }
    text = _JINJA.replace("BOS", "bos_token" if bos else "''")
    for name in sorted(parts, key=len, reverse=True):
        text = text.replace(f"<{name}>", _quoted(parts[name]))
    return OWN_PROMPT + "".join(line.strip() for line in text.splitlines())


_JINJA = r"""
{%- set ns = namespace(begun=false, system='') -%}
{%- for message in messages -%}
{%- set turn = namespace(text='', clips='', parts=0) -%}
{%- if message['content'] is string -%}
{%- set turn.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'audio' or part['type'] == 'audio_url' -%}
{%- set turn.clips = turn.clips + <AUDIO> -%}
{%- elif part['type'] == 'text' -%}
{%- set turn.text = turn.text + ('\n' if turn.parts else '') + part['text'] -%}
{%- set turn.parts = turn.parts + 1 -%}
{%- else -%}
{{- raise_exception('parts are text or audio') -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'system' and not ns.begun -%}
{%- set ns.system = <SYSTEM_BEFORE> + turn.text + <SYSTEM_AFTER> -%}
{%- elif message['role'] == 'assistant' and ns.begun -%}
{{- turn.text + eos_token -}}
{%- elif message['role'] == 'user' -%}
{%- if ns.begun -%}{{- <BETWEEN> -}}{%- endif -%}
{{- turn.clips -}}
{%- if not ns.begun -%}{{- BOS -}}{%- endif -%}
{{- ns.system + <BEFORE> + turn.text + <AFTER> -}}
{%- if add_generation_prompt or not loop.last -%}{{- <HEADER> -}}{%- endif -%}
{%- set ns.system = '' -%}
{%- set ns.begun = true -%}
{%- else -%}
{{- raise_exception('turns of user and assistant alternate') -}}
{%- endif -%}
{%- endfor -%}
"""


def _quoted(text: str) -> str:
    """A string of Jinja."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def join_text(segments: Sequence[Segment]) -> list[Segment]:
    """Merge neighbouring texts of one kind, so that a tokenizer sees them whole."""
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if isinstance(segment, Text) and isinstance(last, Text) and segment.special == last.special:
            joined[-1] = Text(last.text + segment.text, segment.special)
        else:
            joined.append(segment)
    return joined


def plain(segments: Sequence[Segment]) -> str:
    """The prompt as a person reads it, one placeholder a clip."""
    return "".join(AUDIO_PLACEHOLDER if isinstance(s, Clip) else s.text for s in segments if not isinstance(s, Mark))
