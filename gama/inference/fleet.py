"""A manifest is answered by one process, or by one for each device. No torch until a model is loaded."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from io import RawIOBase
from pathlib import Path
from typing import Any, Literal

from gama import interrupts
from gama.atomic import check_output, make_folder, write_errors
from gama.data.remap import Remap
from gama.errors import GamaError
from gama.inference.asking import Asker
from gama.inference.batches import Reply, replies
from gama.inference.hearing import Asking
from gama.inference.journal import Journal, Place
from gama.inference.rows import Asked, Key, asked
from gama.locks import locked
from gama.processes import spawn
from gama.text import json_text

_BLOCK = 64  # questions that go to one device together, and those about the same clip with them
_GRACE = 10.0  # seconds for a process to leave when its work is done
_GLANCE = 0.2  # seconds between two looks at whether the processes still live


@dataclass(frozen=True)
class Work:
    """What is to be answered, and by which model; a process gets all of it.

    Attributes:
        manifest, questions, remap: see :func:`gama.inference.rows.asked`.
        out: where the lines go.
        how: how questions are put.
        batch_size: prompts computed together.
        loading: options of :func:`gama.inference.opening.load`.
        cache: folder of kept prefixes and its limit in bytes; None for no folder.
    """

    manifest: Path
    questions: tuple[str, ...]
    out: Path
    how: Asking = field(default_factory=Asking)
    batch_size: int = 8
    loading: dict[str, Any] = field(default_factory=dict)
    cache: tuple[Path, int] | None = None
    remap: Remap = field(default_factory=Remap)

    def asked(self) -> Iterator[Asked]:
        """The questions, in order."""
        return asked(self.manifest, self.questions, self.remap)

    def open(self) -> Asker:
        """Load the model."""
        from gama.inference.opening import open_asker

        return open_asker(self.loading, self.cache)


@dataclass(frozen=True)
class Done:
    """One answered question, for whoever counts them.

    Attributes:
        audio_id: the clip.
        seconds: of sound.
        error: what was wrong; empty for an answer.
        warning: what is odd about the clip's level; empty for nothing.
    """

    audio_id: str
    seconds: float = 0.0
    error: str = ""
    warning: str = ""


class Run:
    """The questions of a manifest that are left, on their way to their answers.

    Attributes:
        left: how many are to be asked.
        kept: how many an earlier run has answered.

    Args:
        work: what, and by which model.
        resume: go on with an earlier run: what it has answered is not asked again, what failed is.

    Raises:
        ManifestError: for rows that cannot be used; before anything is loaded.
        OutputError: for an output that cannot or must not be written.
        LockedError: while another process writes it.
        GamaError: for an output that belongs to another manifest, or one that broke off, without ``resume``.
    """

    def __init__(self, work: Work, *, resume: bool = False) -> None:
        self._work, self._resume, self._journal = work, resume, Journal(work.out)
        self._journal.check([work.manifest])
        make_folder(work.out.parent)
        self._lock = ExitStack()
        self._lock.enter_context(locked(work.out, "these answers"))
        with self._lock.pop_all() as lock:  # let go where anything is wrong
            self._journal.begin(resume=resume)
            places = self._journal.places()
            self._positions, total = _left(work, places if resume else {})
            self._journal.mend()
            self._lock = lock.pop_all()
        self.left, self.kept = len(self._positions), total - len(self._positions)

    def done(self, devices: Sequence[str] = ()) -> Iterator[Done]:
        """Answer, and put the lines in order at the end.

        Args:
            devices: one process each; none for this process and the device of ``work.loading``.

        Raises:
            GamaError: where a process ends before its work does.
        """
        with self:
            if self._positions and devices:
                with _Processes(self._work, self.shares(len(devices)), devices) as processes:
                    yield from processes.done()
            elif self._positions:
                yield from answer(self._work, self._positions, self._journal.part())
            self.merge()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write the output."""
        self._lock.close()

    def shares(self, count: int) -> list[list[int]]:
        """The positions that are left, for so many processes; questions about one clip stay together."""
        return _shares(self._work, self._positions, count)

    def merge(self) -> None:
        """Put all lines in order, when every question has one.

        Raises:
            GamaError: where a question has none.
        """
        places = self._journal.places()
        if not self._resume:  # what is about to be replaced counts for nothing
            places = {key: place for key, place in places.items() if place.file != self._work.out}
        self._journal.merge(self._work.asked(), places)


def _left(work: Work, places: dict[Key, Place]) -> tuple[list[int], int]:
    """The positions of the questions that have no answer yet, and how many questions there are."""
    left, total = [], 0
    exists = work.out.exists()
    for position, question in enumerate(work.asked()):
        if exists and question.clip is not None:
            check_output(work.out, [question.clip])
        place = places.get(question.key)
        if place is not None and place.audio_id != question.audio_id:
            raise GamaError(
                f"{place.file}: row {question.row} is about {place.audio_id!r}, in {work.manifest} about "
                f"{question.audio_id!r}",
                "resume with the manifest of the first run, or give another file: --out FILE",
            )
        if place is None or place.failed:
            left.append(position)
        total += 1
    return left, total


def answer(work: Work, positions: Sequence[int], part: Path) -> Iterator[Done]:
    """Answer some questions of a manifest in this process and append their lines to a file."""
    wanted = set(positions)
    chosen = (q for i, q in enumerate(work.asked()) if i in wanted)
    questions: list[Asked] = []

    def requests() -> Iterator[Any]:
        for question in chosen:
            questions.append(question)
            yield question.request

    with write_errors(part):
        file = part.open("ab", buffering=0)  # nothing is left to be written when it is closed
    with file:
        for reply in replies(work.open, requests(), work.how, batch_size=work.batch_size):
            question = questions.pop(0)
            line = f"{json_text(question.line(reply))}\n".encode()
            with write_errors(part):
                _append(file, line)
            yield told(question, reply)


def _append(file: RawIOBase, line: bytes) -> None:
    """Write a line to its end: a disk that fills up takes a part of it first."""
    while line:
        line = line[file.write(line) or 0 :]


def told(question: Asked, reply: Reply) -> Done:
    """What a reply says to whoever counts."""
    if reply.answer is None:
        return Done(question.audio_id, error=str(reply.error))
    clips = reply.answer.clips
    warning = next((clip.level_warning for clip in clips if clip.level_warning), "")
    return Done(question.audio_id, sum(clip.duration for clip in clips), warning=warning)


# -- processes ---------------------------------------------------------------------------------------------------------


def _shares(work: Work, left: Sequence[int], count: int) -> list[list[int]]:
    """Blocks of questions in turn for each process; those about one clip that stand together stay so."""
    shares: list[list[int]] = [[] for _ in range(count)]
    wanted, block, size, before = set(left), 0, 0, ""
    for position, question in enumerate(work.asked()):
        if position not in wanted:
            continue
        if size >= min(_BLOCK, -(-len(left) // count)) and question.audio_id != before:
            block, size = block + 1, 0
        shares[block % count].append(position)
        size, before = size + 1, question.audio_id
    return shares


_Word = tuple[Literal["done"], Done] | tuple[Literal["failed"], tuple[str, str | None]] | tuple[Literal["end"], int]


class _Processes(AbstractContextManager["_Processes"]):
    """One process a device; they are stopped when the work is left."""

    def __init__(self, work: Work, shares: Sequence[Sequence[int]], devices: Sequence[str]) -> None:
        self._words: Any = multiprocessing.get_context("spawn").Queue()  # CUDA does not survive a fork
        journal = Journal(work.out)
        self._devices: dict[int, tuple[str, Any]] = {}
        threads = work.loading.get("threads")
        for number, (share, device) in enumerate(zip(shares, devices, strict=True), 1):
            if not share:
                continue
            loading = work.loading | {"device": device}
            if threads is not None:
                loading["threads"] = max(1, threads // len(devices))
            own = replace(work, loading=loading)
            process = spawn(_process, number, own, list(share), journal.part(number), channel=self._words)
            self._devices[number] = (device, process)

    def done(self) -> Iterator[Done]:
        running = set(self._devices)
        while running:
            try:
                kind, told = self._words.get(timeout=_GLANCE)
            except queue.Empty:
                self._check(running)
                continue
            if kind == "failed":
                raise GamaError(*told)
            if kind == "end":
                running.discard(told)
            else:
                yield told

    def _check(self, running: set[int]) -> None:
        for number in running:
            device, process = self._devices[number]
            interrupts.check()  # SIGTERM to the whole group ends the others as well
            if process.exitcode is not None and self._words.empty():
                raise GamaError(
                    f"the process on {device} ended with status {process.exitcode} before its work did",
                    "run the command again with --resume",
                )

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for _device, process in self._devices.values():
            process.join(_GRACE if kind is None else 0)
            if process.is_alive():
                process.terminate()
                process.join()
        self._words.close()


def _process(number: int, work: Work, positions: list[int], part: Path, words: Any) -> None:
    """What one process does."""
    try:
        for done in answer(work, positions, part):
            words.put(("done", done))
    except GamaError as error:
        words.put(("failed", (error.message, error.hint)))
        return
    words.put(("end", number))


class Tally:
    """Counts what was answered, and how fast."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._begun = clock, clock()
        self._clips: set[str] = set()
        self.warnings: set[str] = set()
        self.answered = self.failed = 0
        self.seconds = 0.0

    def add(self, done: Done) -> None:
        """One question more."""
        self.failed += bool(done.error)
        self.answered += not done.error
        if done.audio_id not in self._clips and not done.error:
            self._clips.add(done.audio_id)
            self.seconds += done.seconds

    def facts(self) -> dict[str, Any]:
        """The counts, and answers, clips and seconds of sound a second."""
        took = max(self._clock() - self._begun, 1e-9)
        return {
            "answered": self.answered,
            "failed": self.failed,
            "clips": len(self._clips),
            "sound_s": round(self.seconds, 3),
            "took_s": round(took, 3),
            "answers_per_s": round(self.answered / took, 3),
            "clips_per_s": round(len(self._clips) / took, 3),
            "times_real_time": round(self.seconds / took, 2),
        }


__all__ = ["Done", "Run", "Tally", "Work", "answer", "told"]
