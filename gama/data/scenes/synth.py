"""A procedural generator for every class: ``GENERATORS[label](rng, seconds, count) -> Take``."""

from __future__ import annotations

from gama.data.scenes import (
    synth_animals,
    synth_house,
    synth_machines,
    synth_nature,
    synth_people,
    synth_street,
)
from gama.data.scenes.classes import BY_LABEL
from gama.data.scenes.synth_blocks import Countable, Texture

GENERATORS: dict[str, Countable | Texture] = {
    **synth_animals.GENERATORS,
    **synth_people.GENERATORS,
    **synth_house.GENERATORS,
    **synth_street.GENERATORS,
    **synth_machines.GENERATORS,
    **synth_nature.GENERATORS,
}
"""The generator of every class, by label."""

TEXTURES: tuple[str, ...] = tuple(label for label, c in BY_LABEL.items() if c.unit is None)
"""Classes whose sound fills its time and is not counted."""
