"""A scene in 96 words: what the prefix of the tiny model says, in the place where it says it.

The language model of gama-mini is first trained on text, with these words in the 96 positions that the audio tower
fills later. Every position has one meaning, so that a Q-Former query can specialise in it.

=========  ==========================================================================================
position   word
=========  ==========================================================================================
0–6        first foreground event by onset: class, count (one…five, many, or some where it is not
           counted), start second, end second, length in seconds, loudness (loud, medium, soft),
           pitch (high, middle, low)
7–13       second foreground event, the same seven
14–20      third foreground event, the same seven
21         class of the background
22         number of foreground events (zero…three, many)
23         place: indoors, outdoors, unknown
24         danger: danger, caution, safe
25, 26     class of the loudest and of the softest foreground event
27, 28     class of the highest and of the lowest foreground event
29         class of the last foreground event
30         class of the event that decides what to do
31         silent, noise or sound
32–95      timeline, one word for each 0.16 s: the class heard there (events that overlap take turns,
           loudest first), else the background's class, else noise, else quiet; ``end`` after the clip
=========  ==========================================================================================

A summary position with nothing to say holds ``none``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gama.data.scenes.classes import BY_LABEL, CLASSES, SoundClass
from gama.data.scenes.scene import Event, Scene

NUMBERS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
"""Number words; a word's index is its value."""

SUMMARY_SLOTS = 32
TIMELINE_SLOTS = 64
SLOT_SECONDS = 0.16
EVENT_SLOTS = 3
"""Foreground events that the summary has room for."""

LOUD_DB = -24.0
"""RMS level (dBFS) from which an event is called loud."""
SOFT_DB = -30.0
"""RMS level (dBFS) below which an event is called soft."""
HIGH_HZ = 2000.0
"""Spectral centroid from which an event is called high."""
LOW_HZ = 800.0
"""Spectral centroid below which an event is called low."""

PlaceWord = Literal["indoors", "outdoors", "unknown"]
DangerWord = Literal["danger", "caution", "safe"]
KindWord = Literal["silent", "noise", "sound"]

VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *(c.word for c in CLASSES),
            *NUMBERS,
            *("many", "some", "loud", "medium", "soft", "high", "middle", "low", "none"),
            *("indoors", "outdoors", "unknown", "danger", "caution", "safe"),
            *("silent", "noise", "sound", "quiet", "end"),
        )
    )
)
"""Every word a transcript can hold; each is one token of gama-mini's tokenizer (with its leading space)."""


def sound(event: Event) -> SoundClass:
    """The class of an event."""
    return BY_LABEL[event.label]


def second_word(seconds: float) -> str:
    """A time as the word of its nearest whole second, zero to ten."""
    return NUMBERS[min(10, max(0, int(seconds + 0.5)))]


def length_word(event: Event) -> str:
    """An event's length as a word, at least one second."""
    return second_word(max(1.0, event.end - event.start))


def count_word(event: Event) -> str:
    """How many single sounds an event holds: one to five, many, or ``some`` where it is not counted."""
    if sound(event).unit is None or event.count < 1:
        return "some"
    return NUMBERS[event.count] if event.count <= 5 else "many"


def loudness_word(event: Event) -> str:
    """Loud, medium or soft, by :data:`LOUD_DB` and :data:`SOFT_DB`."""
    if event.level_db >= LOUD_DB:
        return "loud"
    return "soft" if event.level_db < SOFT_DB else "medium"


def pitch_word(event: Event) -> str:
    """High, middle or low, by :data:`HIGH_HZ` and :data:`LOW_HZ`."""
    if event.centroid_hz >= HIGH_HZ:
        return "high"
    return "low" if event.centroid_hz < LOW_HZ else "middle"


def kind(scene: Scene) -> KindWord:
    """Whether the clip is silent, only noise, or holds a sound that can be named."""
    if scene.events:
        return "sound"
    return "noise" if scene.noise else "silent"


def evidence(scene: Scene) -> tuple[PlaceWord, Event | None]:
    """Where the clip was recorded, and the event that tells.

    A background surrounds the microphone, so where its class has a place it decides. Otherwise the foreground
    decides if all of its classes that have a place agree; where none has one, or they disagree, it is unknown.
    """
    background = scene.background
    decisive = [e for e in scene.foreground if sound(e).place != "either"]
    if background is not None and sound(background).place != "either":
        decisive = [background]
    places = {sound(e).place for e in decisive}
    if places == {"indoors"}:
        return "indoors", decisive[0]
    if places == {"outdoors"}:
        return "outdoors", decisive[0]
    return "unknown", None


def place(scene: Scene) -> PlaceWord:
    """Indoors, outdoors or unknown, by the rule of :func:`evidence`."""
    return evidence(scene)[0]


def deciding(scene: Scene) -> Event | None:
    """The event that decides what to do: the most dangerous, then one with an advice of its own, then the first."""

    def urgency(event: Event) -> tuple[int, bool]:
        level = ("none", "caution", "danger").index(sound(event).danger)
        return level, not sound(event).advice.startswith("No action")

    ordered = (*scene.foreground, *([scene.background] if scene.background else []))
    return max(ordered, key=urgency, default=None)


def danger(scene: Scene) -> DangerWord:
    """The highest warning among all classes heard: danger, caution or safe."""
    event = deciding(scene)
    level = "none" if event is None else sound(event).danger
    return "safe" if level == "none" else level


def extremes(events: Sequence[Event]) -> tuple[Event, Event, Event, Event]:
    """The loudest, softest, highest and lowest of one or more events."""
    by_level = sorted(events, key=lambda e: -e.level_db)
    by_pitch = sorted(events, key=lambda e: -e.centroid_hz)
    return by_level[0], by_level[-1], by_pitch[0], by_pitch[-1]


def _event_words(event: Event) -> list[str]:
    times = [second_word(event.start), second_word(event.end), length_word(event)]
    return [sound(event).word, count_word(event), *times, loudness_word(event), pitch_word(event)]


def summary(scene: Scene) -> list[str]:
    """The 32 summary words of a scene (see the table above)."""
    events = scene.foreground
    words = [word for event in events[:EVENT_SLOTS] for word in _event_words(event)]
    words += ["none"] * (7 * EVENT_SLOTS - len(words))
    words.append(sound(scene.background).word if scene.background else "none")
    words.append(NUMBERS[len(events)] if len(events) <= EVENT_SLOTS else "many")
    words += [place(scene), danger(scene)]
    words += [sound(e).word for e in (*extremes(events), events[-1])] if events else ["none"] * 5
    decider = deciding(scene)
    words.append(sound(decider).word if decider else "none")
    words.append(kind(scene))
    return words


def _slot_word(scene: Scene, by_level: Sequence[Event], slot: int) -> str:
    begin, end = slot * SLOT_SECONDS, (slot + 1) * SLOT_SECONDS
    if begin >= scene.duration:
        return "end"
    active = [e for e in by_level if e.start < end and e.end > begin]
    if active:
        return sound(active[slot % len(active)]).word
    if scene.background:
        return sound(scene.background).word
    return "noise" if scene.noise else "quiet"


def timeline(scene: Scene) -> list[str]:
    """The 64 timeline words of a scene, one for each 0.16 s."""
    by_level = sorted(scene.foreground, key=lambda e: -e.level_db)
    return [_slot_word(scene, by_level, slot) for slot in range(TIMELINE_SLOTS)]


def transcript(scene: Scene) -> list[str]:
    """The 96 words of a scene: 32 summary words, then 64 timeline words."""
    return summary(scene) + timeline(scene)
