"""A session: lines go in, events come out, and nothing that goes wrong ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from gama.audio import Waveform
from gama.chat import commands
from gama.chat.clips import Group, Held, Shelf, groups, held
from gama.chat.conversation import Exchange, Part, opening, remembered, told
from gama.chat.events import Answered, Asking, Attached, Event, Failed, Left, Note, Piece
from gama.chat.opening import Opening
from gama.chat.paths import Wanted, dropped
from gama.chat.settings import Model, Settings
from gama.errors import GamaError, PromptError
from gama.inference.turns import Said, Spoken, Voice

_LEAVING = ("exit", "quit")
LONGEST_QUESTION = 100_000
"""Characters; far beyond any model's context, and no work for a tokenizer."""


class Session:
    """One conversation with one model.

    Args:
        open_voice: loads a model.
        model: which.
        settings: how questions are put.
        hearing: options of :func:`gama.audio.load` for every clip (``channel``, ``max_duration``).
        check: refuses a model that cannot be, before the old one is let go.

    Attributes:
        stop: set by another thread or a signal handler to end the answer that is being given; whoever sets it clears
            it before the next line.
        is_answering: whether the model is at work on an answer.
        exchanges: questions and answers so far.
        shelf: the clips.
        focus: names of the clips that the last question was about.
        fresh: names of the clips attached since.
        system: what the model is told before everything.
        unanswered: a question that ended in an error, and its clips.
    """

    def __init__(
        self,
        open_voice: Callable[[Model], Voice],
        *,
        model: Model | None = None,
        settings: Settings | None = None,
        hearing: dict[str, Any] | None = None,
        check: Callable[[Model], None] = lambda _: None,
    ) -> None:
        self.open_voice = open_voice
        self.model = model or Model()
        self.settings = settings or Settings()
        self.hearing = hearing or {}
        self.check = check
        self.stop = threading.Event()
        self.is_answering = False
        self.shelf = Shelf()
        self.exchanges: list[Exchange] = []
        self.focus: tuple[str, ...] = ()
        self.fresh: tuple[str, ...] = ()
        self.system = ""
        self.unanswered: tuple[str, tuple[str, ...]] | None = None
        self.attempts = 0  # how often the last question was asked again
        self.untold = 0  # oldest exchanges that no longer fit the context
        self._opening: Opening | None = None

    # -- the model -----------------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Begin to load the model while the person types."""
        if self._opening is None:
            self._opening = Opening(lambda: self.open_voice(self.model))

    @property
    def is_loaded(self) -> bool:
        return self._opening is not None and self._opening.is_ready

    @property
    def is_loading(self) -> bool:
        return self._opening is not None and not self._opening.is_done

    @property
    def voice(self) -> Voice:
        """The model; waits for it.

        Raises:
            GamaError: when it cannot be loaded.
        """
        self.warm()
        assert self._opening is not None
        try:
            return self._opening.result()
        except Exception:
            self._opening = None  # the next question tries again
            raise

    def use(self, model: Model) -> None:
        """Change the model; where the new one cannot be loaded, the old one stays.

        The old one is let go of first: two may not fit into memory. It is loaded again where it is needed again.
        """
        self.check(model)
        before, self.model, self._opening = self.model, model, None
        try:
            self.voice  # noqa: B018 (loads it now)
        except BaseException:
            self.model, self._opening = before, None
            raise

    # -- what goes in --------------------------------------------------------------------------------------------------

    def line(self, text: str) -> Iterator[Event]:
        """A line as a person types it: a command, clips, a question."""
        return self.guarded(self._line(text))

    def ask(self, question: str, clips: Sequence[str] | None = None) -> Iterator[Event]:
        """A question, about the clips in focus or about those named."""
        return self.guarded(self._ask(question, None if clips is None else tuple(clips)))

    def attach(self, wanted: Wanted) -> Iterator[Event]:
        """Add a clip."""
        return self.guarded(self._attach(wanted))

    def guarded(self, events: Iterator[Event]) -> Iterator[Event]:
        """Events, and an event in place of what goes wrong."""
        try:
            yield from events
        except GamaError as error:
            yield Failed(error.message, error.hint)
        except OSError as error:
            what = f": {error.filename}" if error.filename else ""
            yield Failed(f"{error.strerror or error}{what}")
        except Exception as error:  # out of memory, a fault of ours: it is told, and the session goes on
            yield Failed(f"{type(error).__name__}: {' '.join(str(error).split())}", internal=True)

    def _line(self, text: str) -> Iterator[Event]:
        text = text.strip()
        if not text:
            return
        if text in _LEAVING:
            yield Left()
            return
        name, _, rest = text[1:].partition(" ")
        if text.startswith("/") and (command := commands.named(name)):
            yield from command.run(self, rest.strip())
            return
        paths, question = dropped(text)
        if not paths and text.startswith("/"):
            yield from commands.unknown(name, text)
            return
        for path in paths:
            yield from self._attach(Wanted(path))
        if question:
            yield from self._ask(question, None)

    # -- clips ---------------------------------------------------------------------------------------------------------

    def _attach(self, wanted: Wanted) -> Iterator[Event]:
        name = self.shelf.free_name(wanted.path, wanted.name)
        yield from self.add(held(wanted, name, **self.hearing))

    def add(self, clip: Held) -> Iterator[Event]:
        """Put a decoded clip on the shelf; the next question is about it."""
        self.shelf.put(clip)
        self.fresh = (*self.fresh, clip.name)
        yield Attached(clip)
        others = [name for name in self.shelf.names if name not in self.fresh]
        if others:
            both = " ".join(f"@{name}" for name in (others[-1], clip.name))
            yield Note(f"the next question is about {', '.join(self.fresh)}; begin it with {both} to ask about both")

    def drop(self, name: str) -> Held:
        """Let go of a clip; exchanges about it are no longer told to the model."""
        clip = self.shelf.drop(name)
        self.focus = tuple(n for n in self.focus if n != clip.name)
        self.fresh = tuple(n for n in self.fresh if n != clip.name)
        return clip

    # -- questions -----------------------------------------------------------------------------------------------------

    def _ask(self, question: str, clips: tuple[str, ...] | None) -> Iterator[Event]:
        if clips is None:
            mentioned, question = self.shelf.mentioned(question)
            clips = mentioned or self.fresh or self.focus
        for name in clips:
            self.shelf.named(name)
        if len(question) > LONGEST_QUESTION:
            raise PromptError(
                f"the question has {len(question)} characters, {LONGEST_QUESTION} at most were expected", "ask in short"
            )
        question = question.encode("utf-8", "replace").decode()  # a stray byte is no text for a tokenizer
        if not question.strip():
            raise PromptError("the question is empty", "ask something, for example: what happened?")
        self.attempts = 0
        yield from self.answer(question, clips)

    def answer(self, question: str, clips: tuple[str, ...]) -> Iterator[Event]:
        """Answer and remember; a question that fails is kept for ``/retry``."""
        self.unanswered = question, clips
        exchange = yield from self._answered(question, clips)
        self.unanswered = None
        self.exchanges.append(exchange)
        self.focus, self.fresh = clips, ()
        yield Answered(exchange)

    def _answered(self, question: str, clips: tuple[str, ...]) -> Generator[Event, None, Exchange]:
        heard = groups([self.shelf.named(name) for name in clips])
        parts: list[Part] = []
        yield Asking(question, clips)
        for index, group in enumerate(heard):
            turns = yield from self._turns(question, clips, heard, index)
            if begins := opening(group, len(heard), index):
                yield Piece(begins)
            said = yield from self._said(turns)
            parts.append(Part(group.start, group.end, said))
            if said.finish == "interrupted":
                break
        return Exchange(question, clips, tuple(parts), windows=len(heard))

    def _said(self, turns: Sequence[Spoken]) -> Generator[Event, None, Said]:
        options = self.settings.sampling()
        if options["seed"] is not None:
            options["seed"] += self.attempts
        speech = self.voice.say(turns, stopped=self.stop.is_set, **options)
        self.is_answering = True
        try:
            while True:
                yield Piece(next(speech))
        except StopIteration as end:
            said: Said = end.value
            return said
        finally:
            self.is_answering = False

    def _turns(
        self, question: str, clips: tuple[str, ...], heard: Sequence[Group], index: int
    ) -> Generator[Event, None, list[Spoken]]:
        """The turns that fit the context; where the oldest no longer do, that is told."""
        past = remembered([e for e in self.exchanges if self._can_be_told(e)], self.settings.memory)
        room = full = self.voice.context - min(self.settings.max_new_tokens, self.voice.context // 4)
        first = min(self.untold, len(past)) if self.settings.memory == "full" else 0
        while True:
            turns = told(
                past[first:],
                question,
                clips=clips,
                heard=heard,
                index=index,
                system=self.system,
                windows_of=self._windows_of,
            )
            if first >= len(past) or self.voice.measure(turns, self.settings.template) <= room:
                break
            if room == full:
                room = full * 3 // 4  # some at once: else every question from now on would begin anew
            first += 1
        if first > self.untold or (first and self.settings.memory == "last"):
            yield Note(f"the context is full: the model is no longer told the oldest {first} of {len(past)} turns")
        if self.settings.memory == "full":
            self.untold = first
        return turns

    def _can_be_told(self, exchange: Exchange) -> bool:
        return all(name in self.shelf for name in exchange.clips)

    def _windows_of(self, names: tuple[str, ...]) -> tuple[Waveform, ...]:
        return tuple(w for group in groups([self.shelf.named(name) for name in names]) for w in group.windows)

    def retry(self) -> Iterator[Event]:
        """Ask the last question again, in place of its answer."""
        if self.unanswered is not None:
            yield from self.answer(*self.unanswered)
            return
        if not self.exchanges:
            raise PromptError("there is no question to ask again")
        last = self.exchanges[-1]
        if self.settings.temperature == 0 and last.finish != "interrupted":
            yield Note("temperature is 0: the likeliest answer comes again; for another: /set temperature 0.7")
        for name in last.clips:
            self.shelf.named(name)
        self.attempts += 1
        self.exchanges.pop()
        try:
            yield from self.answer(last.question, last.clips)
        except BaseException:
            self.exchanges.append(last)
            self.unanswered = None
            raise

    def undo(self) -> Exchange:
        """Take back the last question and its answer.

        Raises:
            PromptError: when there is none.
        """
        if not self.exchanges:
            raise PromptError("there is nothing to take back")
        last = self.exchanges.pop()
        self.focus = tuple(name for name in last.clips if name in self.shelf)
        self.untold, self.unanswered = 0, None
        return last

    def clear(self) -> None:
        """Forget every question and answer; the clips stay."""
        self.exchanges.clear()
        if self.is_loaded:
            self.voice.forget()
        self.untold, self.unanswered = 0, None

    def judge(self, verdict: Any, correction: str = "") -> Exchange:
        """Mark the last answer.

        Raises:
            PromptError: when there is none.
        """
        if not self.exchanges:
            raise PromptError("there is no answer to judge")
        self.exchanges[-1] = replace(self.exchanges[-1], verdict=verdict, correction=correction)
        return self.exchanges[-1]


__all__ = ["LONGEST_QUESTION", "Session"]
