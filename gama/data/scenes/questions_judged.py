"""Questions that weigh what is heard: louder, higher, indoors or outdoors, dangerous, what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gama.data.scenes import phrasing as p
from gama.data.scenes import wording as w
from gama.data.scenes.answers import QA, YES_NO
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.sentences import about, agree, clause, fill, heard, the, two, unique
from gama.data.scenes.transcript import (
    HIGH_HZ,
    LOUD_DB,
    LOW_HZ,
    SOFT_DB,
    danger,
    deciding,
    evidence,
    loudness_word,
    pitch_word,
    sound,
)

if TYPE_CHECKING:
    import numpy as np

LEVEL_GAP_DB = 3.0
"""Levels closer than this are not compared."""
PITCH_RATIO = 1.25
"""Centroids closer than this ratio are not compared."""


@dataclass(frozen=True)
class _Scale:
    """Something by which two sounds compare: loudness or pitch."""

    task: str
    apart: Callable[[Event, Event], bool]
    value: Callable[[Event], float]
    more: str
    most: str
    ask_more: tuple[str, ...]
    ask_most: tuple[str, ...]
    ask_yes_no: tuple[str, ...]


_LOUDER = _Scale(
    "loudness",
    lambda a, b: abs(a.level_db - b.level_db) >= LEVEL_GAP_DB,
    lambda e: e.level_db,
    "louder",
    "the loudest",
    p.LOUDER,
    p.LOUDEST,
    p.LOUDER_YES_NO,
)
_SOFTER = replace(
    _LOUDER, value=lambda e: -e.level_db, more="softer", most="the softest", ask_more=p.SOFTER, ask_most=p.SOFTEST,
    ask_yes_no=(),
)  # fmt: skip
_HIGHER = _Scale(
    "pitch",
    lambda a, b: max(a.centroid_hz, b.centroid_hz) >= PITCH_RATIO * min(a.centroid_hz, b.centroid_hz),
    lambda e: e.centroid_hz,
    "higher",
    "the highest",
    p.HIGHER,
    p.HIGHEST,
    p.HIGHER_YES_NO,
)
_LOWER = replace(
    _HIGHER, value=lambda e: -e.centroid_hz, more="lower", most="the lowest", ask_more=p.LOWER, ask_most=p.LOWEST,
    ask_yes_no=(),
)  # fmt: skip


def _most(events: Sequence[Event], rng: np.random.Generator, scale: _Scale) -> QA | None:
    ranked = sorted(events, key=scale.value)
    if not scale.apart(ranked[-1], ranked[-2]):
        return None
    top = ranked[-1]
    output = f"{w.capital(the(top))} {agree(top, 'is', 'are')} {scale.most}."
    return QA(w.pick(rng, scale.ask_most), output, scale.task, sound(top).word, "class", form="most")


def _compare(events: Sequence[Event], rng: np.random.Generator, up: _Scale, down: _Scale) -> QA | None:
    """Which of two sounds, or of all, is more; None where they are too close to tell."""
    draw = rng.random()
    scale = up if draw >= 0.8 or rng.random() < 0.6 else down
    if draw < 0.3:
        return _most(events, rng, scale)
    x, y = two(events, rng)
    if not scale.apart(x, y):
        return None
    if rng.random() < 0.5:
        x, y = y, x
    top = max(x, y, key=scale.value)
    says = f"{w.capital(the(top))} {agree(top, 'is', 'are')} {scale.more}"
    asks_yes_no = draw >= 0.7 and scale.ask_yes_no
    question = fill(w.pick(rng, scale.ask_yes_no if asks_yes_no else scale.ask_more), rng, sound(x), sound(y))
    form = f"{scale.more} yes/no" if asks_yes_no else scale.more  # asked for yes or no it is told the fact too
    return QA(question, f"{says}.", scale.task, sound(top).word, "class", form=form)


def ask_loudness(scene: Scene, rng: np.random.Generator) -> QA | None:
    """How loud a sound is, or which of two or all is louder; None where that is too close to tell."""
    events = unique(scene)
    if len(events) > 1 and rng.random() < 0.75:
        return _compare(events, rng, _LOUDER, _SOFTER)
    clear = [e for e in events if min(abs(e.level_db - LOUD_DB), abs(e.level_db - SOFT_DB)) >= 1.0]
    if not clear:
        return None
    event = w.pick(rng, clear)
    word = loudness_word(event)
    spoken = "of medium loudness" if word == "medium" else word
    says = f"{the(event)} {agree(event, 'is', 'are')} {spoken}."
    if word == "medium" or rng.random() < 0.5:
        question = about(scene, w.pick(rng, p.HOW_LOUD), rng, event)
        choices = ("loud", "medium", "soft")
        return QA(question, w.capital(says), "loudness", word, "word", choices=choices, form="how loud")
    asks_loud = rng.random() < 0.5
    key = "yes" if asks_loud == (word == "loud") else "no"
    question = about(scene, w.pick(rng, p.IS_LOUD if asks_loud else p.IS_SOFT), rng, event)
    return QA(question, f"{w.capital(key)}, {says}", "loudness", key, "word", choices=YES_NO, form="is it loud")


def ask_pitch(scene: Scene, rng: np.random.Generator) -> QA | None:
    """How high a sound is, or which of two or all is higher; None where that is too close to tell."""
    events = unique(scene)
    if len(events) > 1 and rng.random() < 0.8:
        return _compare(events, rng, _HIGHER, _LOWER)
    clear = [e for e in events if all(not 0.9 < e.centroid_hz / edge < 1.1 for edge in (LOW_HZ, HIGH_HZ))]
    if not clear:
        return None
    event = w.pick(rng, clear)
    word = pitch_word(event)
    output = f"{w.capital(the(event))} {agree(event, 'is', 'are')} {'of middle pitch' if word == 'middle' else word}."
    question = about(scene, w.pick(rng, p.HOW_HIGH), rng, event)
    return QA(question, output, "pitch", word, "word", choices=("high", "middle", "low"), form="how high")


def ask_place(scene: Scene, rng: np.random.Generator) -> QA:
    """Indoors or outdoors, and what tells."""
    where, event = evidence(scene)
    yes_no = rng.random() < 0.3
    asks_outdoors = rng.random() < 0.5
    question = w.pick(rng, (p.IS_OUTDOORS if asks_outdoors else p.IS_INDOORS) if yes_no else p.PLACE)
    if event is None:
        output = f"The place is unknown: I hear {heard(scene)}."
        return QA(question, output, "place", where, "word", choices=("indoors", "outdoors", "unknown"), form="unknown")
    if yes_no:
        key = "yes" if asks_outdoors == (where == "outdoors") else "no"
        output = f"{w.capital(key)}, it is probably {where}: {clause(event)}."
        return QA(question, output, "place", key, "word", choices=YES_NO, form="yes/no")
    output = f"Probably {where}: {clause(event)}."
    return QA(question, output, "place", where, "word", choices=("indoors", "outdoors", "unknown"), form="where")


def ask_danger(scene: Scene, rng: np.random.Generator) -> QA | None:
    """Whether there is danger, or what to do; None for a scene without events."""
    event = deciding(scene)
    if event is None:
        return None
    level, heard_now, advice = danger(scene), clause(event), sound(event).advice
    draw = rng.random()
    if draw < 0.4:
        bare = advice.rstrip(".")
        question = w.pick(rng, p.ADVICE)
        return QA(question, f"{bare}: {heard_now}.", "danger", bare.lower(), "phrase", form="advice")
    asks_safe = draw < 0.5
    question = w.pick(rng, p.SAFE if asks_safe else p.DANGER)
    if level == "caution":
        output, key = f"Caution: {heard_now}. {advice}", "caution"
    elif level == "danger":
        key = "no" if asks_safe else "yes"
        output = f"{w.capital(key)}, {heard_now}. {advice}"
    else:
        key = "yes" if asks_safe else "no"
        output = f"{'Yes, it is safe' if asks_safe else 'No, there is no danger'}: {heard_now}."
    choices = ("yes", "caution", "no")
    return QA(question, output, "danger", key, "word", choices=choices, form="safe" if asks_safe else "danger")
