"""Questions and answers written by a language model from what is known of a clip: its events and a caption.

As in the paper (appendix on CompA-R and OpenAQA): the writer sees no sound. It sees the events with their times and a
caption, and writes questions that need reasoning, their answers, and the topic each one is about. Every reply that can
be used is kept on disk, so that a run that was stopped asks for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from gama.atomic import check_output, make_folder, write_text
from gama.data.chat_endpoint import Endpoint, Message
from gama.data.manifest import Malformed, usable, writing
from gama.data.remap import Remap, named_from
from gama.interrupts import thread_pool

SYSTEM = (
    "You write training data for a model that listens to sounds and answers questions about them. You are given the "
    "sound events of a recording, with their times in seconds where they are known, and a caption. Write {count} "
    "different questions that a curious listener could ask about the recording and that need reasoning: about causes, "
    "order, place, people, intentions, mood, or what may follow. Each must be answerable from the sound alone, without "
    "the list and the caption; never mention that they exist. Answer each truly, in fewer than 30 words, and say so "
    "where something is only likely. Reply with a JSON list of {count} objects with the keys question, answer and "
    "topic (a few words: what knowledge the answer needs), and with nothing else."
)
AGAIN = "That was not a JSON list of objects with question, answer and topic. Reply with that list alone."

_STARTS = 200  # places in a reply where the list may begin

_NAMES = {
    "question": ("question", "instruction"),
    "answer": ("answer", "output"),
    "topic": ("topic", "knowledge topic", "knowledge_topic"),
}


@dataclass(frozen=True)
class Known:
    """What is known of a clip.

    Attributes:
        audio_id: as the written manifest names it.
        events: ``label`` or ``label 0.0-1.2 s``, in order.
        caption: a sentence; empty where there is none.
        facts: fields of its rows that the new rows carry as well.
    """

    audio_id: str
    events: tuple[str, ...]
    caption: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the writer sees."""
        events = "; ".join(self.events) or "unknown"
        return f"Sound events: {events}\nCaption: {self.caption or 'unknown'}"


@dataclass(frozen=True)
class Pair:
    """A question, its answer and its topic."""

    question: str
    answer: str
    topic: str


@dataclass
class Written:
    """What was done.

    Attributes:
        clips: with something known of them.
        unknown: clips with neither events nor a caption; nothing is asked about them.
        asked, kept: replies that came from the server, and clips whose pairs lay on disk.
        malformed: replies that were no list of pairs; each was asked for again.
        given_up: clips without a usable reply.
        pairs: rows written.
    """

    clips: int = 0
    unknown: int = 0
    asked: int = 0
    kept: int = 0
    malformed: int = 0
    given_up: int = 0
    pairs: int = 0


def known_of(manifests: Iterable[Path], out: Path, malformed: Malformed | None = None) -> Iterator[Known]:
    """Every clip of some manifests, with what its rows tell: ``events`` or ``timestamp_events``, and ``caption``.

    A row whose task is captioning (``cap``) gives its answer as the caption where no row has one.

    Raises:
        ManifestError: naming file, row and field.
    """
    clips: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for record, row in usable(manifest, malformed):
            clip = Remap().file(record["audio_id"], manifest)
            if clip is None:
                continue
            entry = clips.setdefault(named_from(clip, out.parent), {})
            if events := _events(record):
                entry.setdefault("events", events)
            if isinstance(record.get("caption"), str):
                entry.setdefault("caption", record["caption"])
            elif row.task.startswith("cap"):
                entry.setdefault("answer", row.output.removeprefix("Audio caption:").strip())
            facts = {name: record[name] for name in ("dataset", "split", "group", "fold") if name in record}
            entry.setdefault("facts", facts)
    for name, entry in clips.items():
        yield Known(name, entry.get("events", ()), entry.get("caption") or entry.get("answer", ""), entry["facts"])


def _events(record: dict[str, Any]) -> tuple[str, ...]:
    given = record.get("events") or record.get("timestamp_events")
    if isinstance(given, str):  # CompA-R: "['(Speech-0.0-0.64)', ...]"
        return tuple(part.strip("'\" ()") for part in given.strip("[]").split("',") if part.strip())
    if not isinstance(given, list):
        return ()
    return tuple(_event(event) for event in given)


def _event(event: Any) -> str:
    if isinstance(event, dict):
        event = [event.get("label"), event.get("start"), event.get("end")]
    if isinstance(event, list) and len(event) == 3 and None not in event:
        return f"{str(event[0]).replace('_', ' ')} {event[1]}-{event[2]} s"
    return str(event)


class Writer:
    """Asks an endpoint for pairs.

    Args:
        endpoint: server and model.
        cache: folder of replies.
        count: pairs for each clip.
        attempts: replies that are asked for before a clip is given up.
        temperature: of the sampling.
    """

    def __init__(
        self, endpoint: Endpoint, cache: Path, *, count: int = 5, attempts: int = 3, temperature: float = 0.7
    ) -> None:
        self.endpoint, self.cache = endpoint, cache
        self.count, self.attempts, self.temperature = count, attempts, temperature

    def pairs(self, known: Known) -> tuple[list[Pair], Counter[str]]:
        """The pairs about a clip, none where it was given up, and what happened on the way.

        Raises:
            GamaError: when the server cannot be used.
        """
        system = {"role": "system", "content": SYSTEM.format(count=self.count)}
        messages: list[Message] = [system, {"role": "user", "content": known.text}]
        file = self.cache / f"{self._key(messages)}.json"
        counts: Counter[str] = Counter()
        if file.is_file() and (pairs := parsed(file.read_text(encoding="utf-8"))):
            counts["kept"] += 1
            return pairs[: self.count], counts
        for attempt in range(self.attempts):
            asked = [*messages, {"role": "user", "content": AGAIN}] if attempt else messages
            reply = self.endpoint.complete(asked, temperature=self.temperature, seed=attempt)
            counts["asked"] += 1
            if pairs := parsed(reply):
                self._keep(file, pairs)
                return pairs[: self.count], counts
            counts["malformed"] += 1
        counts["given_up"] += 1
        return [], counts

    def _key(self, messages: Sequence[Message]) -> str:
        facts = [self.endpoint.model, self.temperature, list(messages)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def _keep(self, file: Path, pairs: Sequence[Pair]) -> None:
        make_folder(file.parent)
        write_text(file, json.dumps([vars(pair) for pair in pairs], ensure_ascii=False))


def parsed(reply: str) -> list[Pair]:
    """The pairs in a reply, whatever stands around the JSON; empty where there is none."""
    decoder = json.JSONDecoder()
    starts = (index for index, character in enumerate(reply) if character in "[{")
    for at in islice(starts, _STARTS):
        try:
            value, _ = decoder.raw_decode(reply, at)
        except ValueError:
            continue
        except RecursionError:
            return []
        if found := _pairs(value):
            return found
    return []


def _pairs(value: Any) -> list[Pair]:
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        return []
    return [pair for item in value if isinstance(item, dict) and (pair := _pair(item)) is not None]


def _pair(item: dict[str, Any]) -> Pair | None:
    lower = {str(key).strip().lower(): text for key, text in item.items() if isinstance(text, str)}
    found = {name: next((lower[n].strip() for n in names if n in lower), "") for name, names in _NAMES.items()}
    return Pair(**found) if found["question"] and found["answer"] else None


def write_questions(
    manifests: Sequence[Path],
    out: Path,
    writer: Writer,
    *,
    at_once: int = 4,
    progress: Callable[[int], None] | None = None,
    malformed: Malformed | None = None,
) -> Written:
    """Write a manifest of questions about the clips of others.

    Args:
        manifests: what is known of the clips.
        out: the manifest written.
        writer: asks.
        at_once: requests under way.
        progress: called with how many clips are done since its last call.
        malformed: see :func:`gama.data.manifest.usable`.

    Raises:
        ManifestError: for a manifest that cannot be used.
        OutputError: where ``out`` cannot be written, or is one of the manifests.
        GamaError: when the server cannot be used. What it answered before is kept.
    """
    check_output(out, manifests, make_folder=True)
    done = Written()
    told = (known for known in known_of(manifests, out, malformed) if _worth(known, done))
    with writing(out) as file:
        for known, (pairs, counts) in _asked(writer, told, at_once):
            for name, number in counts.items():
                setattr(done, name, getattr(done, name) + number)
            for pair in pairs:
                file.add(_row(known, pair))
            if progress is not None:
                progress(1)
        done.pairs = file.count
    return done


def _worth(known: Known, done: Written) -> bool:
    told = bool(known.events or known.caption)
    done.clips += told
    done.unknown += not told
    return told


def _asked(
    writer: Writer, told: Iterator[Known], at_once: int
) -> Iterator[tuple[Known, tuple[list[Pair], Counter[str]]]]:
    """Every clip with its pairs, in order, some requests under way at once."""
    waiting: deque[tuple[Known, Future[tuple[list[Pair], Counter[str]]]]] = deque()
    with thread_pool(at_once) as pool:
        try:
            while True:
                for known in islice(told, 2 * at_once - len(waiting)):
                    waiting.append((known, pool.submit(writer.pairs, known)))
                if not waiting:
                    return
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _row(known: Known, pair: Pair) -> dict[str, Any]:
    topic = {"topic": pair.topic} if pair.topic else {}
    return {
        "audio_id": known.audio_id,
        "instruction": pair.question,
        "input": "",
        "output": pair.answer,
        "task": "open-ended question",
        **known.facts,
        **topic,
    }
