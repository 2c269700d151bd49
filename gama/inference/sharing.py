"""What the prompts of a batch begin with in common: the same sound, and the words before the question. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gama.inference.asking import Prompt

_WORTH = 16  # shared positions from which it pays to read them first


@dataclass(frozen=True)
class Sharing:
    """Beginnings that are read once.

    Attributes:
        length: positions of each beginning.
        leaders: for each beginning, a row that has it.
        beginning: for each row, the index of its beginning.
    """

    length: int
    leaders: tuple[int, ...]
    beginning: tuple[int, ...]


def sharing(prompts: Sequence[Prompt], audio_token_id: int, num_audio_tokens: int) -> Sharing | None:
    """What prompts about the same sounds share; None where it is not worth anything.

    Beginnings are of one length, end before a clip or behind it, and leave each prompt something to read.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(tuple(w.sha256 for w in prompt.windows), []).append(row)
    if len(groups) == len(prompts):
        return None
    length = min(_common([prompts[row].ids for row in rows]) for rows in groups.values())
    length = _outside_clips([p.ids for p in prompts], length, audio_token_id, num_audio_tokens)
    if length < _WORTH:
        return None
    place = {row: index for index, rows in enumerate(groups.values()) for row in rows}
    return Sharing(length, tuple(rows[0] for rows in groups.values()), tuple(place[i] for i in range(len(prompts))))


def _common(rows: Sequence[tuple[int, ...]]) -> int:
    most = min(map(len, rows)) - 1
    return next((i for i in range(most) if any(row[i] != rows[0][i] for row in rows)), most)


def _outside_clips(rows: Sequence[tuple[int, ...]], length: int, placeholder: int, each: int) -> int:
    """The length, taken back until it lies within no clip of any row."""
    while True:
        inside = max(_inside(row, length, placeholder, each) for row in rows)
        if not inside:
            return length
        length -= inside


def _inside(row: tuple[int, ...], length: int, placeholder: int, each: int) -> int:
    """How many soft tokens of an unfinished clip stand before a position."""
    return row[:length].count(placeholder) % each


__all__ = ["Sharing", "sharing"]
