"""Questions about a scene with their true answers: what a person asks, and what gama-mini learns to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gama.data.scenes import phrasing as p
from gama.data.scenes import wording as w
from gama.data.scenes.answers import QA, score
from gama.data.scenes.classes import CLASSES
from gama.data.scenes.questions_events import ask_count, ask_describe, ask_order, ask_presence, ask_time, ask_what
from gama.data.scenes.questions_judged import ask_danger, ask_loudness, ask_pitch, ask_place
from gama.data.scenes.scene import Scene
from gama.data.scenes.sentences import absent, caption, fill, nothing
from gama.data.scenes.transcript import kind

if TYPE_CHECKING:
    import numpy as np

__all__ = ["QA", "STAGE_TASKS", "TASKS", "ask", "caption", "score"]

TASKS: tuple[str, ...] = (
    "what", "describe", "presence", "count", "order", "time", "loudness", "pitch", "place", "danger", "silence",
    "offtopic",
)  # fmt: skip
"""Every task; ``silence`` belongs to clips without a nameable sound, where it takes the place of all but offtopic."""

_CLOSED = ("what", "presence", "count", "order", "time", "loudness", "pitch")
STAGE_TASKS: dict[str, tuple[str, ...]] = {
    "classification": ("what",),
    "closed": (*_CLOSED, "silence"),
    "open": (*_CLOSED, "describe", "silence", "offtopic"),
    "reasoning": TASKS,
}
"""The tasks of each training stage."""

OFF_TOPIC_ANSWER = "I can only answer questions about the sound."

_ABSENT_SHARE = 0.06

_WEIGHTS: dict[str, float] = {
    "what": 1.3, "describe": 0.8, "presence": 1.6, "count": 1.8, "order": 2.4, "time": 1.8, "loudness": 1.6,
    "pitch": 1.4, "place": 0.8, "danger": 1.0, "offtopic": 0.4,
}  # fmt: skip


_TEMPLATES: dict[str, tuple[str, ...]] = {
    "what": p.WHAT,
    "describe": p.DESCRIBE,
    "presence": p.PRESENCE,
    "count": p.COUNT + p.COUNT_SOUNDS,
    "order": p.FIRST + p.LAST + p.AFTER + p.BEFORE + p.ORDER_YES_NO,
    "time": p.START + p.STOP + p.LENGTH,
    "loudness": p.LOUDER + p.SOFTER + p.LOUDEST + p.SOFTEST + p.HOW_LOUD + p.IS_LOUD,
    "pitch": p.HIGHER + p.LOWER + p.HIGHEST + p.HOW_HIGH,
    "place": p.PLACE + p.IS_OUTDOORS + p.IS_INDOORS,
    "danger": p.DANGER + p.SAFE + p.ADVICE,
}


def _silence(scene: Scene, rng: np.random.Generator, tasks: Sequence[str]) -> QA:
    """Any question about a clip in which nothing can be named."""
    asked = w.pick(rng, [t for t in tasks if t in _TEMPLATES] or ["what"])
    countable = [c for c in CLASSES if c.unit]
    x, y = w.pick(rng, countable), w.pick(rng, CLASSES)
    question = fill(w.pick(rng, _TEMPLATES[asked]), rng, x, y)
    return QA(question, nothing(scene), "silence", kind(scene), "word", choices=("silent", "noise"), form=asked)


def _off_topic(scene: Scene, rng: np.random.Generator) -> QA:
    return QA(w.off_topic(rng), OFF_TOPIC_ANSWER, "offtopic", "only answer questions", "phrase", form="offtopic")


_MAKERS: dict[str, Callable[[Scene, np.random.Generator], QA | None]] = {
    "what": ask_what,
    "describe": ask_describe,
    "presence": ask_presence,
    "count": ask_count,
    "order": ask_order,
    "time": ask_time,
    "loudness": ask_loudness,
    "pitch": ask_pitch,
    "place": ask_place,
    "danger": ask_danger,
    "offtopic": _off_topic,
}
_NEED_EVENTS = ("count", "order", "time", "loudness", "pitch")


def _one(scene: Scene, rng: np.random.Generator, task: str, tasks: Sequence[str]) -> QA | None:
    """A question of a task, or one about an absent sound; None where the task does not fit the scene."""
    if kind(scene) != "sound" and task != "offtopic":
        return _silence(scene, rng, tasks)
    if task not in _NEED_EVENTS:
        return _MAKERS[task](scene, rng)
    return absent(scene, rng, task) if rng.random() < _ABSENT_SHARE else _MAKERS[task](scene, rng)


def _fallback(scene: Scene, rng: np.random.Generator, tasks: Sequence[str]) -> QA:
    """What to ask where none of the wanted tasks fits: about an absent sound if they allow that, else what it is."""
    if kind(scene) != "sound" and set(tasks) != {"offtopic"}:
        return _silence(scene, rng, tasks)
    if set(tasks) == {"offtopic"}:
        return _off_topic(scene, rng)
    allowed = [t for t in tasks if t in _NEED_EVENTS]
    return absent(scene, rng, w.pick(rng, allowed)) if allowed else ask_what(scene, rng)


def ask(scene: Scene, rng: np.random.Generator, count: int = 1, *, tasks: Sequence[str] | None = None) -> list[QA]:
    """Questions about a scene, with true answers.

    Args:
        scene: what is heard.
        rng: the only source of chance: the same state gives the same questions.
        count: how many questions; their wordings differ where the tasks allow it.
        tasks: some of :data:`TASKS`, by default all. A scene to which none of them applies gets a question about an
            absent sound or, failing that, ``what``; a scene without a nameable sound gets ``silence`` for all but
            ``offtopic``.

    Raises:
        ValueError: for a task that does not exist.
    """
    wanted = tuple(TASKS if tasks is None else tasks)
    if unknown := sorted(set(wanted) - set(TASKS)):
        raise ValueError(f"unknown tasks {unknown}; expected some of {list(TASKS)}")
    weights = {t: _WEIGHTS[t] for t in wanted if t in _WEIGHTS} or {"what": 1.0}
    made: list[QA] = []
    seen: set[str] = set()
    for attempt in range(5 * count):
        if len(made) == count:
            break
        qa = _attempt(scene, rng, weights, last_resort=attempt >= 4 * count)
        if qa is not None and (qa.instruction.lower() not in seen or attempt >= 4 * count):
            seen.add(qa.instruction.lower())
            made.append(replace(qa, instruction=w.typed(qa.instruction, rng)))
    return made


def _attempt(scene: Scene, rng: np.random.Generator, weights: dict[str, float], *, last_resort: bool) -> QA | None:
    """One question of a task drawn by weight, which makes the task rarer in the draws that follow."""
    if last_resort:
        return _fallback(scene, rng, tuple(weights))
    task = _draw(weights, rng)
    weights[task] *= 0.4
    return _one(scene, rng, task, tuple(weights))


def _draw(weights: dict[str, float], rng: np.random.Generator) -> str:
    at = rng.random() * sum(weights.values())
    for task, weight in weights.items():
        at -= weight
        if at < 0:
            return task
    return next(reversed(weights))
