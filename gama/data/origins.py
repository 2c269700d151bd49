"""Which original recording a row's clip was cut from, so that one recording is not on both sides of a split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

# the 11 characters of a YouTube id; AudioSet's tools put a Y in front, others the seconds behind
_YOUTUBE = re.compile(r"(?:Y(?=[\w-]{11}(?:_|$)))?([\w-]{11})(?:_\d.*)?", re.ASCII)
_ESC = re.compile(r"\d-(\d+)-[A-Z]-\d+", re.ASCII)
_FREESOUND = re.compile(r"(\d+)", re.ASCII)

_FORMS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("audioset", "youtube", _YOUTUBE),
    ("as_", "youtube", _YOUTUBE),
    ("audiocaps", "youtube", _YOUTUBE),
    ("vggsound", "youtube", _YOUTUBE),
    ("musiccaps", "youtube", _YOUTUBE),
    ("dcase17", "youtube", _YOUTUBE),
    ("compa", "youtube", _YOUTUBE),
    ("esc", "fs", _ESC),
    ("fsd", "fs", _FREESOUND),
)
"""Beginning of a data set's name, where its recordings come from, and how its files carry their number there."""

_HELD_OUT = frozenset({"val", "valid", "validation", "dev-test", "test", "eval", "evaluation"})


def origin(record: Mapping[str, Any]) -> str | None:
    """The recording, such as ``youtube:0123456789a`` or, of Freesound, ``fs:156826``; None where nothing tells.

    A row's own ``group`` goes before what its data set and file name tell.
    """
    group = record.get("group")
    if isinstance(group, (str, int)) and group != "":
        return str(group)
    dataset = str(record.get("dataset") or "").lower().replace("-", "")
    stem = PurePosixPath(str(record.get("audio_id"))).stem
    for beginning, place, form in _FORMS:
        if dataset.startswith(beginning) and (match := form.fullmatch(stem)):
            return f"{place}:{match[1]}"
    return None


def side(record: Mapping[str, Any], *, held_out: bool) -> str:
    """``train`` or ``held-out``, or the fold of a row that has one.

    Args:
        held_out: whether its manifest was named as held out.
    """
    if held_out or str(record.get("split") or "").lower() in _HELD_OUT:
        return "held-out"
    fold = record.get("fold")
    return "train" if fold is None else f"fold {fold}"
