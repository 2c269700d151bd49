"""Questions with their true answers, and whether an answer that a model gave is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from gama.data.scenes.classes import BY_LABEL, CLASSES
from gama.data.scenes.transcript import NUMBERS

Kind = Literal["classes", "class", "word", "number", "seconds", "phrase"]

YES_NO: tuple[str, ...] = ("yes", "no")

_SYNONYMS: dict[str, str] = {
    "not": "no",
    "careful": "caution",
    "inside": "indoors",
    "indoor": "indoors",
    "outside": "outdoors",
    "outdoor": "outdoors",
    "unclear": "unknown",
    "quiet": "soft",
    "silence": "silent",
    "medium": "middle",
}
_TOO_GENERAL = frozenset(("watch", "car", "keys", "tap", "saw", "music", "sleeping person", "tick", "audience"))
_EXTRA_NAMES: dict[str, tuple[str, ...]] = {"applause": ("applauding", "applaud"), "gunshot": ("gunfire",)}
BY_WORD: dict[str, str] = {c.word: c.label for c in CLASSES}
"""The label of every class word."""


@dataclass(frozen=True)
class QA:
    """A question about a scene, its answer, and the fact in it that decides whether an answer is right.

    Attributes:
        instruction: the question as a person types it.
        output: the true answer in whole sentences.
        task: one of :data:`gama.data.scenes.questions.TASKS`.
        key: the key fact in lower case: class words joined by commas, ``yes``, ``three``, ``outdoors``, a phrase.
        kind: how the key is compared, see :func:`score`.
        choices: for kind ``word``, the words of which the answer's first must be the key.
        value: for kind ``seconds``, the exact time.
        also: for kind ``classes``, class words that an answer may name besides the key (the background).
        form: which wording of the task it is, for instance ``first`` or ``after`` of task ``order``.
    """

    instruction: str
    output: str
    task: str
    key: str
    kind: Kind
    choices: tuple[str, ...] = ()
    value: float | None = None
    also: tuple[str, ...] = ()
    form: str = ""


@cache
def _name_pattern() -> tuple[re.Pattern[str], dict[str, str]]:
    names: dict[str, str] = {}
    for c in CLASSES:
        spoken = (c.word, c.label.replace("_", " "), c.phrase, c.clause, *c.names, *_EXTRA_NAMES.get(c.label, ()))
        names.update({n.lower(): c.label for n in spoken if n not in _TOO_GENERAL})
    longest_first = sorted(names, key=lambda n: (-len(n), n))
    alternatives = "|".join(re.escape(n) for n in longest_first)
    return re.compile(rf"\b({alternatives})(?:es|s)?\b"), names


def named(answer: str) -> tuple[str, ...]:
    """The labels of the classes that an answer names, in order of first mention, without repeats."""
    pattern, names = _name_pattern()
    return tuple(dict.fromkeys(names[m.group(1)] for m in pattern.finditer(answer.lower())))


def numbers(answer: str) -> list[float]:
    """The numbers in an answer, words or digits, in order."""
    pattern = re.compile(rf"\b({'|'.join(NUMBERS)})\b|(?<![\w.])(\d+(?:\.\d+)?)")
    return [
        float(NUMBERS.index(m.group(1))) if m.group(1) else float(m.group(2)) for m in pattern.finditer(answer.lower())
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _first_choice(answer: str, choices: tuple[str, ...]) -> str | None:
    for word in _words(answer):
        if word in choices:
            return word
        if _SYNONYMS.get(word) in choices:
            return _SYNONYMS[word]
    return None


def _classes_right(qa: QA, answer: str) -> bool:
    found = {BY_LABEL[label].word for label in named(answer)}
    wanted = set(qa.key.split(","))
    return wanted <= found and found <= wanted | set(qa.also)


def score(qa: QA, answer: str) -> bool:
    """Whether an answer has the key fact right.

    - ``classes``: names every class of the key and none that is not in the scene (synonyms count);
    - ``class``: the first class it names is the key;
    - ``word``: the first of ``choices`` in it is the key;
    - ``number``: its first number is the key;
    - ``seconds``: its first number is within one second of ``value``;
    - ``phrase``: the words of the key stand in it, in order and together.
    """
    if qa.kind == "classes":
        return _classes_right(qa, answer)
    if qa.kind == "class":
        return named(answer)[:1] == (BY_WORD[qa.key],)
    if qa.kind == "word":
        return _first_choice(answer, qa.choices) == qa.key
    if qa.kind == "phrase":
        return f" {' '.join(_words(qa.key))} " in f" {' '.join(_words(answer))} "
    found = numbers(answer)
    if not found:
        return False
    if qa.kind == "number":
        return found[0] == NUMBERS.index(qa.key)
    if qa.value is None:
        raise ValueError(f"a question of kind 'seconds' needs its value, this one has none: {qa.instruction!r}")
    return abs(found[0] - qa.value) <= 1.0 + 1e-6
