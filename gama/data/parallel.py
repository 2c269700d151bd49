"""One function over many items in several processes: in order, a bounded number at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import TypeVar

from gama import interrupts
from gama.errors import GamaError
from gama.processes import process_pool, shielded

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # batches waiting for each process


def mapped(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    batch: int = 16,
    start: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """``function`` of each item, in the order of the items.

    Args:
        function, start: of a module, so that another process finds them; ``start`` runs once in each process.
        items: read as they are needed.
        workers: processes; with 1, or no more than one batch, everything happens in this one.
        batch: items sent to a process at once.

    Raises:
        GamaError: when a process died.
    """
    source = iter(items)
    first = list(islice(source, batch + 1))
    source = chain(first, source)
    if workers == 1 or len(first) <= batch:
        yield from map(function, source)
        return
    with process_pool(workers, start) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        try:
            while True:
                while len(waiting) < _AHEAD * workers and (part := list(islice(source, batch))):
                    with shielded():  # it starts processes
                        waiting.append(pool.submit(_each, function, part))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            interrupts.check()  # SIGTERM to the whole group ends the workers as well
            raise GamaError("a worker process died; memory may have run out", "run again with --workers 1") from None
        finally:
            for future in waiting:
                future.cancel()


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
