"""Questions about what is heard: which sounds, whether one is there, how many, in what order, when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gama.data.scenes import phrasing as p
from gama.data.scenes import wording as w
from gama.data.scenes.answers import QA, YES_NO
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.sentences import (
    ORDER_GAP_S,
    about,
    absent_class,
    agree,
    caption,
    clause,
    fill,
    no,
    seconds,
    the,
    two,
    unique,
    with_background,
)
from gama.data.scenes.transcript import NUMBERS, count_word, length_word, loudness_word, second_word, sound

if TYPE_CHECKING:
    import numpy as np


def _classes_qa(scene: Scene, question: str, output: str, task: str) -> QA:
    events = scene.foreground or scene.events
    key = ",".join(dict.fromkeys(sound(e).word for e in events))
    also = (sound(scene.background).word,) if scene.background else ()
    return QA(question, output, task, key, "classes", also=also, form=task)


def ask_what(scene: Scene, rng: np.random.Generator) -> QA:
    """What is heard: every foreground event in order, and the background."""
    return _classes_qa(scene, w.pick(rng, p.WHAT), caption(scene), "what")


def _span(event: Event) -> str:
    return f"from {second_word(event.start)} to {seconds(second_word(event.end))}"


def _detail(event: Event) -> str:
    """One more sentence about the only event of a scene."""
    unit, count = sound(event).unit, count_word(event)
    if unit is None or count in ("some", "many"):
        word = loudness_word(event)
        return f" The sound is {'of medium loudness' if word == 'medium' else word}."
    return f" I hear {count} {unit[0] if count == 'one' else unit[1]}."


def ask_describe(scene: Scene, rng: np.random.Generator) -> QA:
    """The same with times, and one more fact where there is only one event."""
    question = w.pick(rng, p.DESCRIBE)
    events = scene.foreground
    if not events:
        return _classes_qa(scene, question, caption(scene), "describe")
    text = f"{sound(events[0]).clause} {_span(events[0])}"
    for before, event in zip(events, events[1:], strict=False):
        link = ", then " if event.start - before.start >= ORDER_GAP_S else " and "
        text += f"{link}{clause(event)} {_span(event)}"
    detail = _detail(events[0]) if len(events) == 1 else ""
    return _classes_qa(scene, question, f"{text}{with_background(scene)}.{detail}", "describe")


def ask_presence(scene: Scene, rng: np.random.Generator) -> QA:
    """Whether a class is heard: yes and no equally often."""
    template = w.pick(rng, p.PRESENCE)
    if rng.random() < 0.5:
        event = w.pick(rng, scene.events)
        output, key, asked = f"Yes, {clause(event)}.", "yes", sound(event)
    else:
        asked = absent_class(scene, rng)
        output, key = f"No, {no(asked, scene)}", "no"
    return QA(fill(template, rng, asked), output, "presence", key, "word", choices=YES_NO, form=key)


def ask_count(scene: Scene, rng: np.random.Generator) -> QA | None:
    """How many single sounds, or how many different ones; None where nothing can be counted."""
    labels = {e.label for e in scene.events}
    if rng.random() < 0.1 and not scene.background and len(labels) == len(scene.foreground) > 0:
        word = NUMBERS[len(labels)]
        output = f"I hear {word} {'sound' if word == 'one' else 'sounds'}."
        return QA(w.pick(rng, p.COUNT_SOUNDS), output, "count", word, "number", form="sounds")
    events = [e for e in unique(scene) if sound(e).unit and 1 <= e.count <= 5]
    textures = [e for e in unique(scene) if not sound(e).unit and sound(e).word in w.PLURAL]
    if textures and (not events or rng.random() < 0.1):
        event = w.pick(rng, textures)
        output = f"It cannot be counted: {clause(event)}."
        question = fill(w.pick(rng, p.COUNT[:7]), rng, sound(event))
        return QA(question, output, "count", "cannot be counted", "phrase", form="uncounted")
    if not events:
        return None
    event = w.pick(rng, events)
    word, unit = count_word(event), sound(event).unit or ("sound", "sounds")
    output = f"I hear {word} {unit[0] if word == 'one' else unit[1]}."
    return QA(about(scene, w.pick(rng, p.COUNT), rng, event), output, "count", word, "number", form="events")


def _only_one(scene: Scene, rng: np.random.Generator) -> QA | None:
    events = scene.events
    if len(events) != 1:
        return None
    output = f"There is only one sound: {sound(events[0]).phrase}."
    x = sound(events[0])
    template = w.pick(rng, [t for t in p.FIRST + p.LAST + p.AFTER + p.BEFORE if "{the_y}" not in t])
    return QA(fill(template, rng, x), output, "order", x.word, "class", form="only")


def ask_order(scene: Scene, rng: np.random.Generator) -> QA | None:
    """What comes first, last, after, before; None where onsets are too close, and mostly where there is one sound."""
    events = scene.foreground
    gaps = [b.start - a.start for a, b in zip(events, events[1:], strict=False)]
    if len(unique(scene)) != len(events) or any(gap < ORDER_GAP_S for gap in gaps):
        return None
    if len(events) < 2:
        return _only_one(scene, rng) if rng.random() < 0.2 else None
    form = w.pick(rng, (_first_last, _neighbour, _neighbour, _earlier, _earlier))
    return form(events, rng)


def _first_last(events: Sequence[Event], rng: np.random.Generator) -> QA:
    first = rng.random() < 0.5
    event = events[0] if first else events[-1]
    template = w.pick(rng, p.FIRST if first else p.LAST)
    other = events[1]
    pair = (event, other) if rng.random() < 0.5 else (other, event)
    question = fill(template, rng, sound(pair[0]), sound(pair[1]))
    form = "first" if first else "last"
    output = f"{w.capital(the(event))} {agree(event, 'comes', 'come')} {form}."
    return QA(question, output, "order", sound(event).word, "class", form=form)


def _neighbour(events: Sequence[Event], rng: np.random.Generator) -> QA:
    after = rng.random() < 0.5
    at = int(rng.integers(len(events)))
    beyond = at + 1 if after else at - 1
    if not 0 <= beyond < len(events) and rng.random() < 0.7:
        at = at - 1 if after else at + 1
        beyond = at + 1 if after else at - 1
    form = "after" if after else "before"
    question = fill(w.pick(rng, p.AFTER if after else p.BEFORE), rng, sound(events[at]))
    if not 0 <= beyond < len(events):
        output = f"Nothing comes {form} {the(events[at])}."
        return QA(question, output, "order", "nothing", "word", choices=("nothing",), form="nothing")
    event = events[beyond]
    output = f"{w.capital(the(event))} {agree(event, 'comes', 'come')} {form} {the(events[at])}."
    return QA(question, output, "order", sound(event).word, "class", form=form)


def _earlier(events: Sequence[Event], rng: np.random.Generator) -> QA:
    first, second = two(events, rng)
    x, y = (first, second) if rng.random() < 0.5 else (second, first)
    question = fill(w.pick(rng, p.ORDER_YES_NO), rng, sound(x), sound(y))
    # the fact and no verdict: the tiny language model reads which comes first and still guesses at yes and no
    output = f"{w.capital(the(first))} {agree(first, 'comes', 'come')} before {the(second)}."
    return QA(question, output, "order", sound(first).word, "class", form="earlier")


def ask_time(scene: Scene, rng: np.random.Generator) -> QA | None:
    """When a sound starts or stops, and how long it is heard; None where no class is heard alone."""
    events = unique(scene)
    if not events:
        return None
    event = w.pick(rng, events)
    is_heard = f"{w.capital(the(event))} {agree(event, 'is', 'are')} heard"
    form = w.pick(rng, ("start", "start", "stop", "length"))
    if form == "start":
        word, value, templates = second_word(event.start), event.start, p.START
        output = f"{is_heard} from about {seconds(word)} on."
    elif form == "stop":
        word, value, templates = second_word(event.end), event.end, p.STOP
        output = f"{is_heard} until about {seconds(word)}."
    else:
        word, value, templates = length_word(event), event.end - event.start, p.LENGTH
        output = f"{is_heard} for about {seconds(word)}."
    question = about(scene, w.pick(rng, templates), rng, event)
    return QA(question, output, "time", word, "seconds", value=value, form=form)
