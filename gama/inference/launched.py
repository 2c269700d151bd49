"""A manifest answered by the processes of ``torchrun`` or ``accelerate launch``. No torch until they are counted.

The first of them finds out what is left and tells each its share; every process appends to a file of its own, and the
first follows those files, so that no process waits for another however long an answer takes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gama.inference.fleet import Done, Run, Work, answer
from gama.inference.journal import Journal

_GLANCE = 0.2  # seconds between two looks at what the others have written


class LaunchedRun:
    """What :class:`~gama.inference.fleet.Run` is to one process, for several that others have started.

    Attributes:
        is_first: whether this process speaks and puts the lines in order.
        left, kept: as there; of all processes, in the first alone.

    Args:
        work: what, and by which model; the same in every process.
        resume: go on with an earlier run.

    Raises:
        GamaError: as there, in the first process.
        SystemExit: with 1 in the others, where there is nothing to do because the first has failed.
    """

    def __init__(self, work: Work, *, resume: bool = False) -> None:
        state = _state()
        self.is_first: bool = state.is_main_process
        self._journal, self._number = Journal(work.out), state.process_index
        self._work = replace(work, loading=_on_own_device(work.loading, state))
        self._run: Run | None = None
        told: list[Any] = [None]
        try:
            if self.is_first:
                self._run = Run(work, resume=resume)
                told = [self._run.shares(state.num_processes)]
                self._begun = {part: part.stat().st_size for part in self._journal.parts()}
        finally:  # the others wait for a word, good or bad
            shares: list[list[int]] | None = _from_first(told)
            state.destroy_process_group()
        if shares is None:
            raise SystemExit(1)
        self._shares = shares
        self.left = sum(map(len, shares))
        self.kept = self._run.kept if self._run is not None else 0

    def done(self) -> Iterator[Done]:
        """Answer this process's share; the first goes on with what the others have done, and puts all in order."""
        share = self._shares[self._number]  # a process without one leaves no file behind the first's back
        own = answer(self._work, share, self._part(self._number)) if share else iter(())
        if self._run is None:
            yield from own
            return
        others = [
            _Follower(part, self._begun.get(part, 0), len(share))
            for number, share in enumerate(self._shares)
            if number != self._number and (part := self._part(number))
        ]
        with self._run:
            for done in own:
                yield done
                for other in others:
                    yield from other.news()
            while any(other.left for other in others):
                time.sleep(_GLANCE)
                for other in others:
                    yield from other.news()
            self._run.merge()

    def _part(self, number: int) -> Path:
        return self._journal.part(number + 1)


class _Follower:
    """Reads what another process appends to its file.

    Attributes:
        left: lines to come.

    Args:
        part: the file.
        begin: bytes of an earlier run.
        left: lines of this one.
    """

    def __init__(self, part: Path, begin: int, left: int) -> None:
        self._part, self._at, self.left = part, begin, left

    def news(self) -> Iterator[Done]:
        """The lines since the last look; a line that is half written waits for the next."""
        if not self.left or not self._part.is_file():
            return
        with self._part.open("rb") as file:
            file.seek(self._at)
            lines = file.read().split(b"\n")[:-1]
        for line in lines:
            self._at += len(line) + 1
            self.left -= 1
            row = json.loads(line)
            yield Done(row["audio_id"], row.get("duration_s", 0.0), row.get("error", ""))


def _state() -> Any:
    """The processes and their devices; gloo is enough to send a list, and lets several share a GPU."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), backend="gloo")


def _from_first(told: list[Any]) -> Any:
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list(told)[0]


def _on_own_device(loading: dict[str, Any], state: Any) -> dict[str, Any]:
    """The same options for the device of this process, where none was named and torch may compute."""
    if loading.get("device", "auto") not in ("auto", state.device.type) or loading.get("runtime") == "onnx":
        return loading
    return loading | {"device": str(state.device)}


__all__ = ["LaunchedRun"]
