"""A session as it went, line by line, in a file; and the same session once more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gama.atomic import check_output, is_special, write_errors
from gama.chat.events import Event, Piece, row
from gama.chat.protocol import checked, perform, read_json
from gama.chat.settings import Settings
from gama.errors import OutputError, PromptError
from gama.locks import locked
from gama.text import printable

if TYPE_CHECKING:
    from gama.chat.session import Session

FORMAT = "gama-chat-log"
_HEAD = json.dumps({"log": FORMAT})[:-1].encode()
_HINT = "give a file of --log"


class Log:
    """Appends what goes in and what comes out, a JSON object a line, each written before the next.

    Args:
        path: the file; sessions follow each other in it.
        session: whose settings stand at the head.
        inputs: clips that the session begins with.

    Raises:
        OutputError: for a file that cannot be written, or holds something else than such sessions.
        LockedError: while another process writes it.
    """

    def __init__(self, path: Path, session: Session, inputs: Sequence[Path | str] = ()) -> None:
        check_output(path, inputs)
        self._path = path
        with ExitStack() as stack:
            stack.enter_context(locked(path, "this log"))
            half = _ends_in_half(path)
            with write_errors(path):
                self._file = stack.enter_context(path.open("ab", buffering=0))
            self._stack = stack.pop_all()
        if half:
            self._put(b"\n")
        head = {
            "log": FORMAT,
            "version": 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "cwd": os.getcwd(),
        }
        told = {"settings": asdict(session.settings), "system": session.system, "hearing": session.hearing}
        self._write({**head, "model": asdict(session.model), **told})

    def watched(self, request: dict[str, Any], events: Iterator[Event]) -> Iterator[Event]:
        """Pass events on, and write them with their request; pieces are in the answer."""
        self._write({"in": request})
        for event in events:
            if not isinstance(event, Piece):
                self._write({"out": row(event)})
            yield event

    def close(self) -> None:
        self._stack.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._put(f"{json.dumps(record, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace"))

    def _put(self, line: bytes) -> None:
        with write_errors(self._path):
            while line:
                line = line[self._file.write(line) or 0 :]


def _ends_in_half(path: Path) -> bool:
    """Whether the last line of a log has no end, because its session was killed.

    Raises:
        OutputError: for a file that is no log.
    """
    if is_special(path) or not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        if not file.read(len(_HEAD)) == _HEAD:
            raise OutputError(f"{printable(str(path))}: holds something else than sessions", "give another file: --log")
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


@dataclass(frozen=True)
class Compared:
    """An answer or error of a log, and what came this time.

    Attributes:
        request: what was asked.
        before, now: what came out; None where nothing did.
        interrupted: whether the answer was stopped then.
    """

    request: dict[str, Any]
    before: str | None
    now: str | None
    interrupted: bool = False

    @property
    def is_same(self) -> bool:
        """An answer that was stopped then is the beginning of what is said now."""
        if self.interrupted and self.before is not None and self.now is not None:
            return self.now.startswith(self.before)
        return self.before == self.now


def replay(path: Path, make: Callable[[Settings], Session]) -> Iterator[Compared]:
    """Go through every session of a log again.

    Args:
        path: the log.
        make: a new session with these settings.

    Raises:
        PromptError: for a file that is no log.
    """
    session: Session | None = None
    request: dict[str, Any] = {}
    before: list[_Outcome] = []
    now: list[_Outcome] = []
    for record in _records(path):
        if "out" in record:
            before += _outcome(record["out"])
            continue
        yield from _compared(request, before, now)
        request, before, now = {}, [], []
        if record.get("log") == FORMAT:
            session = _begun(record, make, path)
        elif session is not None and "in" in record:
            request = checked(record["in"])
            now = [outcome for event in perform(session, request) for outcome in _outcome(row(event))]
    yield from _compared(request, before, now)


def _begun(head: dict[str, Any], make: Callable[[Settings], Session], path: Path) -> Session:
    try:
        session = make(Settings(**head["settings"]))
        session.system = head["system"]
    except (KeyError, TypeError) as error:
        raise PromptError(f"{printable(str(path))}: the head of a session lacks {error}", _HINT) from None
    return session


@dataclass(frozen=True)
class _Outcome:
    text: str
    interrupted: bool = False


def _compared(request: dict[str, Any], before: list[_Outcome], now: list[_Outcome]) -> Iterator[Compared]:
    for then, this in zip_longest(before, now):
        yield Compared(
            request,
            before=None if then is None else then.text,
            now=None if this is None else this.text,
            interrupted=then is not None and then.interrupted,
        )


def _outcome(record: Any) -> list[_Outcome]:
    kind = record.get("event") if isinstance(record, dict) else None
    if kind == "answer":
        return [_Outcome(str(record.get("answer")), record.get("finish") == "interrupted")]
    return [_Outcome(f"error: {record.get('message')}")] if kind == "error" else []


def _records(path: Path) -> Iterator[dict[str, Any]]:
    where = printable(str(path))
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = read_json(line)
            except ValueError as error:
                raise PromptError(f"{where}: line {number} is not JSON: {error}", _HINT) from None
            if number == 1 and not (isinstance(record, dict) and record.get("log") == FORMAT):
                raise PromptError(f"{where}: it is no log of a session", _HINT)
            if not isinstance(record, dict):
                raise PromptError(f"{where}: line {number} is {type(record).__name__}, an object was expected", _HINT)
            yield record


__all__ = ["Compared", "Log", "replay"]
