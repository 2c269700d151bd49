"""The pieces that questions and answers about a scene are made of: nouns, verbs, lists, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gama.data.scenes import phrasing as p
from gama.data.scenes import wording as w
from gama.data.scenes.answers import QA, YES_NO
from gama.data.scenes.classes import CLASSES, SoundClass
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.transcript import kind, sound

if TYPE_CHECKING:
    import numpy as np

SILENT_ANSWER = "I hear nothing: the clip is silent."
NOISE_ANSWER = "I hear only noise, no clear sound."

ORDER_GAP_S = 0.5
"""Onsets closer than this have no order worth asking for."""

CONFUSABLE: tuple[frozenset[str], ...] = (
    frozenset(("rain", "wind", "sea_waves", "crackling_fire", "applause", "water_drops")),
    frozenset(("helicopter", "airplane", "chainsaw", "train", "engine", "thunderstorm", "wind")),
    frozenset(("dog", "cat", "rooster", "frog", "owl", "crying_baby")),
    frozenset(("chirping_birds", "crickets", "whistle", "frog")),
    frozenset(("gunshot", "door_knock", "footsteps", "glass_breaking", "clock_tick", "keyboard_typing")),
    frozenset(("siren", "car_horn", "church_bells", "telephone", "whistle")),
    frozenset(("alarm", "telephone", "clock_tick", "car_horn", "piano")),
    frozenset(("sneezing", "snoring", "crying_baby", "cat")),
)
DOUBTFUL: dict[str, frozenset[str]] = {
    "chirping_birds": frozenset(("rooster", "owl")),
    "engine": frozenset(("chainsaw", "train", "helicopter", "airplane", "car_horn")),
    "siren": frozenset(("alarm",)),
    "alarm": frozenset(("siren", "telephone")),
    "church_bells": frozenset(("telephone", "alarm")),
    "rain": frozenset(("water_drops", "thunderstorm")),
    "water_drops": frozenset(("rain",)),
    "thunderstorm": frozenset(("rain", "wind")),
    "wind": frozenset(("thunderstorm",)),
}
"""For some classes those that may be said to include them: where one is heard, the class is not called absent."""


def the(event: Event) -> str:
    """The definite noun of an event (``the dog``)."""
    return f"the {sound(event).word}"


def agree(event: Event, singular: str, plural: str) -> str:
    """The verb form that agrees with an event's noun."""
    return plural if sound(event).word in w.PLURAL else singular


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def clause(event: Event) -> str:
    """An event as a clause within a sentence (``a dog is barking``)."""
    return _lower(sound(event).clause)


def join(parts: Sequence[str]) -> str:
    """A list in words (``a, b and c``)."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def seconds(word: str) -> str:
    """A number word with its unit."""
    return f"{word} second" if word == "one" else f"{word} seconds"


def fill(template: str, rng: np.random.Generator, x: SoundClass, y: SoundClass | None = None) -> str:
    """A question from its template, about class ``x`` and, where two are compared, ``y``."""
    name, other = w.asked_name(x, rng), w.asked_name(y, rng) if y else "other sound"
    units = x.unit[1] if x.unit else x.word
    question = template.format(
        a=w.with_article(name),
        bare=name,
        phrase=x.phrase,
        the_x=f"the {name}",
        the_y=f"the {other}",
        units=units,
        does=w.DOES.get(x.label, f"do you hear the {x.word}"),
    )
    return w.plural_verbs(question, (name, other, x.phrase.split(" ")[0]))


def about(scene: Scene, template: str, rng: np.random.Generator, event: Event) -> str:
    """A question about one event; about ``it`` now and then where the scene has no other."""
    if len(scene.events) == 1 and rng.random() < 0.25:
        template = template.replace("{the_x}", w.pick(rng, ("it", "it", "the sound")))
        template = template.replace("{does}", "do you hear it")
    return fill(template, rng, sound(event))


def unique(scene: Scene) -> list[Event]:
    """The foreground events whose class is heard only once, so that a question can name them."""
    labels = [e.label for e in scene.events]
    return [e for e in scene.foreground if labels.count(e.label) == 1]


def two(events: Sequence[Event], rng: np.random.Generator) -> tuple[Event, Event]:
    """Two different events, in the order given."""
    i, j = sorted(int(k) for k in rng.choice(len(events), size=2, replace=False))
    return events[i], events[j]


def heard(scene: Scene) -> str:
    """The sounds of a scene as a list of noun phrases, the background only where there is nothing else."""
    events = scene.foreground or scene.events
    return join(list(dict.fromkeys(sound(e).phrase for e in events)))


def absent_class(scene: Scene, rng: np.random.Generator, *, countable: bool = False) -> SoundClass:
    """A class that is not heard, and not included in one that is; one like those heard in three of ten."""
    present = {e.label for e in scene.events}
    clear = (c for c in CLASSES if c.label not in present and not present & DOUBTFUL.get(c.label, frozenset()))
    options = [c for c in clear if c.unit or not countable]
    if rng.random() < 0.3:
        near = frozenset[str]().union(*(group for group in CONFUSABLE if group & present))
        options = [c for c in options if c.label in near] or options
    return w.pick(rng, options)


def no(absent: SoundClass, scene: Scene) -> str:
    """That a class is not heard, and what is heard instead."""
    verb = "are" if absent.word in w.PLURAL else "is"
    return f"there {verb} no {absent.word}; I hear {heard(scene)}."


def absent(scene: Scene, rng: np.random.Generator, task: str) -> QA:
    """A question that supposes a sound which is not there."""
    templates = {
        "count": p.COUNT,
        "order": p.AFTER + p.BEFORE,
        "time": p.START + p.STOP + p.LENGTH,
        "loudness": p.HOW_LOUD,
        "pitch": p.HOW_HIGH,
    }[task]
    missing = absent_class(scene, rng, countable=task == "count")
    question = fill(w.pick(rng, templates), rng, missing)
    return QA(question, w.capital(no(missing, scene)), task, "no", "word", choices=YES_NO, form="absent")


def with_background(scene: Scene) -> str:
    """The end of a caption: the background, if there is one."""
    return f", with {sound(scene.background).phrase} in the background" if scene.background else ""


def nothing(scene: Scene) -> str:
    """The answer to any question about a clip without a nameable sound."""
    return SILENT_ANSWER if kind(scene) == "silent" else NOISE_ANSWER


def caption(scene: Scene) -> str:
    """All that is heard, in one sentence: the foreground by onset, then the background."""
    background = scene.background
    if not scene.foreground:
        return f"{sound(background).clause}." if background else nothing(scene)
    text = sound(scene.foreground[0]).clause
    for before, event in zip(scene.foreground, scene.foreground[1:], strict=False):
        text += (", then " if event.start - before.start >= ORDER_GAP_S else " and ") + clause(event)
    return f"{text}{with_background(scene)}."
