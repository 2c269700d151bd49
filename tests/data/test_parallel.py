"""One function over many items: in order, lazily, and with a clear end when a process dies."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest

from gama.data.parallel import mapped
from gama.errors import GamaError


def test_results_come_in_order_from_two_processes() -> None:
    assert list(mapped(math.sqrt, [float(n * n) for n in range(50)], workers=2, batch=3)) == list(range(50))


def test_few_items_need_no_processes() -> None:
    here = os.getpid()
    assert set(mapped(lambda _: os.getpid(), range(3), workers=4, batch=3)) == {here}
    assert list(mapped(abs, [], workers=4)) == []


def test_items_are_read_as_they_are_needed() -> None:
    taken = 0

    def items() -> Iterator[float]:
        nonlocal taken
        for taken in range(10_000):
            yield float(taken)

    stream = mapped(math.sqrt, items(), workers=2, batch=5)
    assert next(stream) == 0.0
    assert taken < 100
    stream.close()  # type: ignore[attr-defined]


def test_a_process_that_dies() -> None:
    with pytest.raises(GamaError, match="a worker process died"):
        list(mapped(os._exit, [3] * 10, workers=2, batch=1))


def test_an_error_of_the_function_comes_through() -> None:
    with pytest.raises(ValueError, match="math domain"):
        list(mapped(math.sqrt, [1.0, -1.0, 4.0], workers=2, batch=1))
