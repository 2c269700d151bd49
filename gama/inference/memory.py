"""A conversation's keys and values, kept: only what has changed since an earlier prompt is computed.

A strand is the cache of one prompt and its answer. The next prompt takes the strand with which it shares the longest
beginning, cuts off what differs and computes the rest. A clip stands first in the prompt, so a second question about
it computes little more than its own words. No torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from gama.audio import Waveform
from gama.inference.asking import Asker
from gama.inference.caches import Cache, is_cuttable, new_cache
from gama.inference.hearing import asking
from gama.inference.streaming import TextStream
from gama.inference.turns import Finish, Said, Spoken, never
from gama.prompt import Turn, instruction

Key = int | tuple[str, int]
"""What a position depends on: an id, or the place in a clip of that hash."""

_WORTH = 16  # shared positions from which a strand is cut to fit; below, it is left to the prompt it belongs to


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Attributes:
        ids: with placeholders for sound.
        windows: the waveforms they stand for, in order.
        keys: what each position depends on.
    """

    ids: tuple[int, ...]
    windows: tuple[Waveform, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class _Strand:
    cache: Cache
    keys: tuple[Key, ...]


class Memory:
    """A model that remembers what it has computed; a :class:`~gama.inference.turns.Voice`.

    Args:
        asker: the model.
        reuse: whether to reuse anything; without it every prompt is computed whole.
    """

    def __init__(self, asker: Asker, *, reuse: bool = True) -> None:
        self.asker = asker
        self.reuse = reuse and is_cuttable(asker)
        self._strands: list[_Strand] = []  # the longest unused first

    @property
    def name(self) -> str:
        return self.asker.name

    @property
    def quantization(self) -> str:
        return self.asker.runtime.quantization

    @property
    def device(self) -> str:
        return self.asker.runtime.device

    @property
    def context(self) -> int:
        return self.asker.context

    @property
    def kept(self) -> int:
        return sum(len(strand.keys) for strand in self._strands)

    def forget(self) -> None:
        self._strands.clear()

    # -- the prompt --------------------------------------------------------------------------------------------------

    def measure(self, turns: Sequence[Spoken], template: str | None = None) -> int:
        return len(self.prompt(turns, template).ids)

    def prompt(self, turns: Sequence[Spoken], template: str | None = None) -> Prompt:
        """Turns -> ids, by the model's own chat template where it has one.

        Raises:
            PromptError: for an empty question or an unknown template.
        """
        worded = [Turn(turn.role, _words(turn), len(turn.windows)) for turn in turns]
        ids = tuple(self.asker.encode(self.asker.segments(worded, template)))
        windows = tuple(window for turn in turns for window in turn.windows)
        return Prompt(ids, windows, _keys(ids, windows, self.asker.audio_token_id, self.asker.num_audio_tokens))

    # -- the answer --------------------------------------------------------------------------------------------------

    def say(
        self, turns: Sequence[Spoken], *, stopped: Callable[[], bool] = never, **options: Any
    ) -> Generator[str, None, Said]:
        """Yield the answer to the last turn in pieces; the generator returns it whole.

        Args:
            turns: the conversation; the last one asks.
            stopped: asked before every token.
            options: fields of :class:`~gama.inference.sampling.Sampling`, and ``template``.

        Raises:
            PromptError: for a prompt beyond the context.
        """
        begun = time.perf_counter()
        how = asking(**options)
        prompt = self.prompt(turns, how.template)
        self.asker.require_room(len(prompt.ids), len(prompt.windows))
        strand, shared = self._taken(prompt)
        prepared = strand.cache.prepare(prompt.ids, prompt.windows[self._heard(prompt, shared) :])
        encoded = time.perf_counter()
        stream = TextStream(self.asker.tokenizer)
        made: list[int] = []
        finish: Finish = "interrupted"
        first = encoded
        if not stopped():
            with closing(strand.cache.tokens(prepared, self.asker.limited(how.sampling, len(prompt.ids)))) as tokens:
                made.append(next(tokens))
                first = time.perf_counter()
                finish = yield from self._rest(tokens, made, stream, stopped)
        if piece := stream.finish():
            yield piece
        # only here: a strand whose computation broke off in the middle is never kept
        self._keep(_Strand(strand.cache, (*prompt.keys, *made)[: strand.cache.length]))
        return Said(
            text=stream.text,
            finish=finish,
            prompt_tokens=len(prompt.ids),
            audio_tokens=len(prompt.windows) * self.asker.num_audio_tokens,
            reused_tokens=shared,
            new_tokens=len(made),
            encode_s=encoded - begun,
            first_token_s=first - begun,
            total_s=time.perf_counter() - begun,
        )

    def _rest(
        self, tokens: Iterator[int], made: list[int], stream: TextStream, stopped: Callable[[], bool]
    ) -> Generator[str, None, Finish]:
        """Give out the first token and all that follow it; how it ended."""
        while True:
            if made[-1] in self.asker.stop_ids:
                return "stop"
            if piece := stream.push(made[-1]):
                yield piece
            if stopped():
                return "interrupted"
            following = next(tokens, None)
            if following is None:
                return "length"
            made.append(following)

    def _heard(self, prompt: Prompt, shared: int) -> int:
        """How many windows stand within the first positions."""
        return sum(1 for key in prompt.keys[:shared] if isinstance(key, tuple)) // self.asker.num_audio_tokens

    # -- strands -----------------------------------------------------------------------------------------------------

    def _taken(self, prompt: Prompt) -> tuple[_Strand, int]:
        """The strand to go on with, cut to what it shares with the prompt, and how much that is."""
        shares = [self._shared(strand.keys, prompt.keys) for strand in self._strands]
        best = max(range(len(shares)), key=shares.__getitem__, default=None)
        if not self.reuse or best is None or shares[best] < _WORTH:
            return _Strand(new_cache(self.asker), ()), 0
        strand = self._strands.pop(best)
        strand.cache.cut(shares[best])
        return strand, shares[best]

    @staticmethod
    def _shared(kept: tuple[Key, ...], wanted: tuple[Key, ...]) -> int:
        """How many first positions are the same; never all of the prompt, and never a part of a clip."""
        count = 0
        for ours, theirs in zip(kept, wanted[:-1], strict=False):
            if ours != theirs:
                break
            count += 1
        following = wanted[count]
        return count - following[1] if isinstance(following, tuple) else count

    def _keep(self, strand: _Strand) -> None:
        """Keep it as the latest; the oldest go while all of them hold more than one full context."""
        if not self.reuse:
            return
        self._strands.append(strand)
        while len(self._strands) > 1 and self.kept > self.context:
            del self._strands[0]


def _words(turn: Spoken) -> str:
    if turn.role != "user":
        return turn.text
    return instruction(turn.text, silent=bool(turn.windows) and all(w.is_silent for w in turn.windows))


def _keys(ids: Sequence[int], windows: Sequence[Waveform], placeholder: int, each: int) -> tuple[Key, ...]:
    keys: list[Key] = []
    seen = 0
    for token in ids:
        if token == placeholder:
            keys.append((windows[seen // each].sha256, seen % each))
            seen += 1
        else:
            keys.append(token)
    return tuple(keys)


__all__ = ["Memory", "Prompt"]
