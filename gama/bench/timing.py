"""Repeated measurements: ways taken in turns, the median with its spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Clock = Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """What repeated measurements say.

    Attributes:
        median: the middle one.
        low, high: the quartiles.
        repeats: how many there were.
    """

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Timing:
        """Of at least one value; of fewer than four, the ends stand for the quartiles.

        Raises:
            ValueError: without any.
        """
        if not values:
            raise ValueError("no value was measured")
        if len(values) < 4:
            return cls(statistics.median(values), min(values), max(values), len(values))
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))


def once(run: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Seconds of one run by a clock: ``time.perf_counter``, or ``time.process_time`` on a busy machine."""
    begun = clock()
    run()
    return clock() - begun


def alternate(
    ways: Mapping[str, Callable[[], Any]], repeats: int, *, warm: int = 1, clock: Clock = time.perf_counter
) -> dict[str, Timing]:
    """Time several ways in turns, so that what else the machine does falls on all of them.

    Args:
        ways: what to run, by name.
        repeats: turns that count.
        warm: turns before them that do not.
        clock: see :func:`once`.

    Returns:
        Seconds, by name.
    """
    for _ in range(warm):
        for run in ways.values():
            run()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            taken[name].append(once(run, clock))
    return {name: Timing.of(values) for name, values in taken.items()}
