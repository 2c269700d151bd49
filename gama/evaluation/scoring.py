"""Ask a model every question of a manifest and count the right answers, task by task."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.data.manifest import Malformed, Row, by_clip, usable
from gama.data.scenes.answers import QA, named, score
from gama.data.scenes.classes import BY_LABEL
from gama.errors import ManifestError

REFUSALS = ("i hear nothing", "only noise", "i can only answer")
"""How gama-mini says that there is nothing to answer."""

_OF_ONE = ("how loud", "is it loud", "how high", "absent")


@dataclass(frozen=True)
class Result:
    """One answered row."""

    row: Row
    answer: str
    right: bool

    @property
    def task(self) -> str:
        """The row's task; naming one or several events apart, and comparing two sounds apart from judging one."""
        row = self.row
        if row.task == "what" and row.scene is not None:
            return "what, one event" if len(row.scene.foreground) == 1 else "what, several"
        if row.task in ("loudness", "pitch") and row.check is not None:
            return f"{row.task}, {'of one' if row.check.get('form') in _OF_ONE else 'which is more'}"
        return row.task or "question"

    @property
    def refused(self) -> bool:
        """Whether the answer says that there is nothing to answer."""
        return _refuses(self.answer)

    @property
    def answerable(self) -> bool:
        """Whether the true answer says something."""
        return self.row.task not in ("silence", "offtopic") and not _refuses(self.row.output)


def _refuses(answer: str) -> bool:
    return any(phrase in answer.lower() for phrase in REFUSALS)


def right(row: Row, answer: str) -> bool:
    """Whether an answer has the key fact right.

    A row with ``check`` is scored by its question's kind; one with events alone is right when it names every
    foreground class (real recordings, whose backgrounds nobody labelled), or no class where there is none.

    Raises:
        ManifestError: for a row without any truth, or with a ``check`` that cannot be used.
    """
    where = f"{row.audio}: {row.instruction!r}"
    if row.check is not None:
        try:
            lists = {name: tuple(row.check.get(name, ())) for name in ("choices", "also")}
            check = {**row.check, **lists}
            return score(QA(instruction=row.instruction, output=row.output, task=row.task, **check), answer)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ManifestError(f"{where}: 'check' cannot be used: {error}") from None
    if row.scene is None:
        raise ManifestError(
            f"{where} carries neither 'check' nor 'events': nothing tells a right answer from a wrong one"
        )
    wanted, found = {e.label for e in row.scene.foreground}, set(named(answer))
    return wanted <= found if wanted else not found


def select(
    manifests: Sequence[Path],
    *,
    folds: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
    limit: int | None = None,
    malformed: Malformed | None = None,
) -> list[list[Row]]:
    """The rows to ask, those of a clip together.

    Args:
        manifests: rows with their truth.
        folds: only recordings of these folds.
        labels: only clips whose first event is one of these classes.
        limit: clips to ask about.
        malformed: see :func:`gama.data.manifest.usable`.

    Raises:
        ManifestError: for rows that cannot be used, a label that does not exist, or where no clip is left.
    """
    for label in labels or ():
        if label not in BY_LABEL:
            near = difflib.get_close_matches(label, BY_LABEL, n=1)
            raise ManifestError(f"no class {label!r}", f"did you mean {near[0]!r}?" if near else None)
    groups = [
        g
        for path in manifests
        for g in by_clip(row for _, row in usable(path, malformed))
        if _wanted(g[0], folds, labels)
    ][:limit]
    if not groups:
        raise ManifestError(f"no clip is left of {', '.join(map(str, manifests))}", "check --folds and --labels")
    for row in (row for group in groups for row in group):
        right(row, "")  # whether it can be scored at all
    return groups


def _wanted(row: Row, folds: Sequence[int] | None, labels: Sequence[str] | None) -> bool:
    if row.audio is None or (folds is not None and row.fold not in folds):
        return False
    return labels is None or (row.scene is not None and bool(row.scene.events) and row.scene.events[0].label in labels)


def summary(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Questions asked, right answers and their share, by task; and refusals where there was something to answer."""
    table: dict[str, dict[str, Any]] = {}
    for result in results:
        entry = table.setdefault(result.task, {"n": 0, "right": 0})
        entry["n"] += 1
        entry["right"] += result.right
    for entry in table.values():
        entry["accuracy"] = round(entry["right"] / entry["n"], 4)
    answerable = [r for r in results if r.answerable]
    if answerable:
        refused = sum(r.refused for r in answerable)
        table["false refusals"] = {
            "n": len(answerable),
            "right": refused,
            "accuracy": round(refused / len(answerable), 4),
        }
    return dict(sorted(table.items()))
