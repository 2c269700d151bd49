"""Many questions about many clips: read ahead, sorted so that little is padded, heard while others are answered.

Requests are taken in pools. A pool's clips are decoded side by side, each clip once; its prompts are put together by
what they hear and by length, and the next batch is heard in the background while one is answered. Replies come in the
order of the requests, and what is wrong with one request is its own reply. No torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from gama.audio import Waveform
from gama.errors import AudioError, GamaError, PromptError, row_error
from gama.inference.answers import Answer, Heard
from gama.inference.asking import Asker, Prompt
from gama.inference.hearing import Asking, Request, named, read, windows
from gama.inference.sampling import Sampling
from gama.interrupts import thread_pool
from gama.text import shown

_POOL = 4  # batches among which prompts are sorted
_MOST_SECONDS = 3600.0  # of sound in one pool: 230 MB
_READERS = 2  # clips decoded side by side

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """What came of a request: an answer, or what was wrong with it."""

    answer: Answer | None = None
    error: GamaError | None = None

    def answer_or_raise(self) -> Answer:
        """The answer.

        Raises:
            GamaError: what was wrong.
        """
        if self.answer is None:
            assert self.error is not None
            raise self.error
        return self.answer


_Decoding = tuple[Request, Future[list[Waveform]]]


@dataclass
class _Pending:
    """A request on its way to its reply."""

    question: str
    waveforms: list[Waveform] = field(default_factory=list)
    groups: list[list[Waveform]] = field(default_factory=list)
    heard: list[Heard | None] = field(default_factory=list)
    error: GamaError | None = None

    @property
    def is_done(self) -> bool:
        return self.error is not None or all(h is not None for h in self.heard)

    def reply(self) -> Reply:
        if self.error is not None:
            return Reply(error=self.error)
        return Reply(Answer.of(self.waveforms, [h for h in self.heard if h is not None]))


@dataclass(frozen=True)
class _Job:
    """One prompt: a window (or several heard together) and a question."""

    pending: _Pending
    index: int

    @property
    def group(self) -> list[Waveform]:
        return self.pending.groups[self.index]

    @property
    def sound(self) -> tuple[str, ...]:
        return tuple(window.sha256 for window in self.group)


def replies(
    opened: Callable[[], Asker], requests: Iterable[Request], how: Asking, *, batch_size: int = 8
) -> Iterator[Reply]:
    """Answer requests, in order.

    Args:
        opened: gives the model; called once, when the first clip could be read.
        requests: taken as they are needed.
        how: how all of them are put.
        batch_size: prompts computed together, for a model that gains by it.

    Raises:
        GamaError: what is wrong with the model itself; what is wrong with a request is in its reply.
    """
    if batch_size < 1:
        raise PromptError(f"batch_size is {batch_size}, at least 1 was expected")
    waiting: list[_Pending] = []
    with thread_pool(_READERS, "gama-read") as readers, thread_pool(1, "gama-hear") as hearer:
        pools = _pools(requests, how, readers, batch_size * _POOL)
        batches = _Batches(pools, waiting, batch_size)
        asker: Asker | None = None
        jobs, is_heard = batches.next(), False
        while jobs is not None:
            following: Future[list[_Job] | None] | None = None
            if jobs:
                asker = asker or opened()
                if not is_heard:
                    batches.hear(asker, jobs)
                following = hearer.submit(batches.heard_next, asker)
                _answer(asker, jobs, how)
            yield from _done(waiting)
            jobs, is_heard = (batches.next(), False) if following is None else (following.result(), True)
        yield from _done(waiting)


class _Batches:
    """The jobs of pool after pool, batch by batch; an empty batch where a pool had nothing to be asked about."""

    def __init__(self, pools: Iterator[list[_Pending]], waiting: list[_Pending], size: int) -> None:
        self._pools, self._waiting, self._size = pools, waiting, size
        self._left: list[list[_Job]] = []

    def next(self) -> list[_Job] | None:
        if not self._left:
            pool = next(self._pools, None)
            if pool is None:
                return None
            self._waiting.extend(pool)
            self._left = _planned(pool, self._size) or [[]]
        return self._left.pop(0)

    def heard_next(self, asker: Asker) -> list[_Job] | None:
        jobs = self.next()
        if jobs:
            self.hear(asker, jobs)
        return jobs

    def hear(self, asker: Asker, jobs: Sequence[_Job]) -> None:
        sounds = {w.sha256: w for job in jobs for w in job.group}
        if sounds:
            asker.prefixes.most = max(asker.prefixes.most, 2 * len(sounds))  # this batch and the next
            with suppress(AudioError):  # raised again for the prompt that it belongs to
                asker.hear(list(sounds.values()))


def _pools(
    requests: Iterable[Request], how: Asking, readers: ThreadPoolExecutor, size: int
) -> Iterator[list[_Pending]]:
    """Requests with their clips decoded; clips that stand in one pool are decoded once."""
    pool: list[_Pending] = []
    seconds = 0.0
    decoded: dict[Any, _Decoding] = {}  # with the request, so that what tells a clip stays its own
    ahead: list[_Decoding] = []
    for request in chain(requests, [None]):
        if request is not None:
            key = _same(request.clips) if request.error is None else id(request)
            _, future = decoded.get(key) or (request, readers.submit(_read, request, how))
            ahead.append((request, future))
            decoded.setdefault(key, ahead[-1])
        while ahead and (request is None or len(ahead) > 2 * _READERS):
            pending = _pending(*ahead.pop(0))
            pool.append(pending)
            seconds += sum(w.duration for w in pending.waveforms)
            if len(pool) >= size or seconds > _MOST_SECONDS:
                yield pool
                decoded = {_same(each[0].clips): each for each in ahead if each[0].error is None}
                pool, seconds = [], 0.0
    if pool:
        yield pool


def _same(clips: Any) -> Any:
    """What tells that two requests are about the same clips."""
    if isinstance(clips, (list, tuple)):
        return tuple(_same(clip) for clip in clips)
    if isinstance(clips, (bytes, str)):
        return clips
    return str(clips) if isinstance(clips, Path) else id(clips)


def _pending(request: Request, future: Future[list[Waveform]]) -> _Pending:
    pending = _Pending(request.question)
    try:
        pending.waveforms = future.result()
        pending.groups = windows(pending.waveforms, together=isinstance(request.clips, (list, tuple)))
    except Exception as error:  # whatever a decoder raises is about this clip
        pending.error = row_error(error, named(request.clips), AudioError)
        return pending
    pending.heard = [None] * len(pending.groups)
    return pending


def _read(request: Request, how: Asking) -> list[Waveform]:
    if request.error is not None:
        raise request.error
    return read(request.clips, how)


def _planned(pool: Sequence[_Pending], size: int) -> list[list[_Job]]:
    """Batches of a pool: questions about one sound stand together, and batches are of like length."""
    by_sound: dict[tuple[str, ...], list[_Job]] = {}
    for pending in pool:
        for index in range(len(pending.groups)):
            job = _Job(pending, index)
            by_sound.setdefault(job.sound, []).append(job)
    for jobs in by_sound.values():
        jobs.sort(key=_length)
    order = sorted(by_sound.values(), key=lambda jobs: (len(jobs[0].group), _length(jobs[-1])))
    batches: list[list[_Job]] = [[]]
    for jobs in order:
        if batches[-1] and len(batches[-1]) + len(jobs) > size:
            batches.append([])
        for job in jobs:
            if len(batches[-1]) == size:
                batches.append([])
            batches[-1].append(job)
    return [batch for batch in batches if batch]


def _length(job: _Job) -> int:
    return len(job.pending.question)


def _answer(asker: Asker, jobs: Sequence[_Job], how: Asking) -> None:
    """Answer a batch; what is wrong with a question is kept with it."""
    prompts: list[tuple[_Job, Prompt]] = []
    for job in jobs:
        if job.pending.error is None:
            try:
                prompts.append((job, asker.prompt(job.group, job.pending.question, how)))
            except Exception as error:  # a tokenizer's or a chat template's, about this question
                job.pending.error = row_error(error, shown(job.pending.question), PromptError)
    if prompts:
        for (job, _), heard in zip(prompts, _said(asker, [p for _, p in prompts], how.sampling), strict=True):
            if isinstance(heard, GamaError):
                job.pending.error = job.pending.error or heard
            else:
                job.pending.heard[job.index] = heard


def _said(asker: Asker, prompts: Sequence[Prompt], sampling: Sampling) -> list[Heard | GamaError]:
    """The answers to a batch; in halves where a device has no memory for it, or where one clip or question is wrong."""
    try:
        return list(asker.said(prompts, sampling))
    except (AudioError, PromptError) as error:
        if len(prompts) == 1:
            return [error]
    except RuntimeError as error:
        if len(prompts) == 1 or type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
            raise
        logger.warning("no memory for %d prompts together: they are answered in halves", len(prompts))
    half = len(prompts) // 2
    return [*_said(asker, prompts[:half], sampling), *_said(asker, prompts[half:], sampling)]


def _done(waiting: list[_Pending]) -> Iterator[Reply]:
    """The replies that are whole and have nothing unfinished before them."""
    while waiting and waiting[0].is_done:
        yield waiting.pop(0).reply()


__all__ = ["Reply", "Request", "replies"]
