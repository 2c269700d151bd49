"""What sounds in each time patch of a scene: targets that teach the encoder to hear when, how many and how loud.

The encoder's pre-training names classes. What a question may ask besides (which sound is the second one, how many barks
so far, which of two is louder) is easier to find for the Q-Former when every patch of the encoder says it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gama.data.packing import IGNORED
from gama.data.scenes.classes import CLASSES
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.transcript import EVENT_SLOTS, SLOT_SECONDS

MOST_COUNTED = 6
"""Single sounds are numbered 1 to 6; more than six stay at six."""

_INDEX = {c.label: i for i, c in enumerate(CLASSES)}


@dataclass(frozen=True)
class Heard:
    """Targets of T patches.

    Attributes:
        classes: (T, C) 1 where the class sounds.
        ordinal: (T, 3) 1 where the first, second, third foreground event sounds.
        onset: (T,) 1 where a single sound begins, 0 where none does, nan where they were not counted.
        number: (T,) long: how many single sounds of the only event have begun, -100 where that is not known.
        level: (T, 2) loudness of the only event, (dB + 25) / 10, and the logarithm of its centroid over 1 kHz; nan
            where there is not one alone.
    """

    classes: Tensor
    ordinal: Tensor
    onset: Tensor
    number: Tensor
    level: Tensor


def patches(event: Event, total: int) -> slice:
    """The patches in which an event sounds, at least one."""
    first = int(event.start / SLOT_SECONDS + 0.25)
    last = max(first + 1, int(event.end / SLOT_SECONDS + 0.75))
    return slice(first, min(total, last))


def frame_labels(scene: Scene, total: int) -> Tensor:
    """Which class sounds in which time patch: (T, C) of 0 and 1."""
    labels = torch.zeros(total, len(CLASSES))
    for event in scene.events:
        labels[patches(event, total), _INDEX[event.label]] = 1.0
    return labels


def heard(scene: Scene, total: int = 64) -> Heard:
    """The targets of a scene."""
    events = scene.foreground
    ordinal = torch.zeros(total, EVENT_SLOTS)
    alone = torch.zeros(total)
    for index, event in enumerate(events):
        alone[patches(event, total)] += 1
        if index < EVENT_SLOTS:
            ordinal[patches(event, total), index] = 1.0
    onset, number = torch.zeros(total), torch.full((total,), IGNORED)
    level = torch.full((total, 2), math.nan)
    for event in events:
        inside = patches(event, total)
        single = torch.zeros(total, dtype=torch.bool)
        single[inside] = alone[inside] == 1
        level[single] = torch.tensor([(event.level_db + 25.0) / 10.0, math.log(max(event.centroid_hz, 50.0) / 1000.0)])
        begins = [min(total - 1, int(at / SLOT_SECONDS)) for at in event.onsets]
        if begins:
            onset[begins] = 1.0
            begun = torch.zeros(total, dtype=torch.long)
            for at in begins:
                begun[at:] += 1
            known = single & (begun > 0)
            number[known] = begun[known].clamp(max=MOST_COUNTED) - 1
        elif event.count == 0:
            onset[inside] = math.nan
    return Heard(frame_labels(scene, total), ordinal, onset, number, level)


def stacked(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The targets of B scenes, each with a first dimension B."""
    parts = [vars(heard(scene)) for scene in scenes]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
