"""``gama chat --json``: requests on stdin, events on stdout, one JSON object a line."""

from __future__ import annotations

import math
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from gama import __version__, interrupts
from gama.chat.events import Event, Failed, Left, row
from gama.chat.protocol import checked, read_json, request_id
from gama.errors import GamaError
from gama_cli import console

if TYPE_CHECKING:
    from gama.chat.session import Session
    from gama_cli.chat import Perform

LONGEST_LINE = 2**20
"""Bytes of a request; a longer line is passed over and answered with an error."""
_AGAIN = 3.0  # seconds in which a second SIGINT ends the program, however many requests are waiting


def hold(session: Session, perform: Perform, beginning: Iterable[dict[str, Any]]) -> int:
    """Serve requests until stdin ends.

    Returns:
        The exit status: always 0, as every error is an event.
    """
    session.warm()
    model = {"name": session.model.model or "mini", "quantization": session.model.quant}
    _emit({"event": "ready", "gama": __version__, "model": model, "memory": session.settings.memory})
    reader = _Reader(session)
    with _stopping(session):
        for request in beginning:
            for event in perform(request):
                _emit(row(event))
        reader.start()
        for number, request in reader.requests():
            reader.begin(number)
            if not _served(perform, request):
                return 0
    _emit(row(Left()))
    return 0


def _served(perform: Perform, request: dict[str, Any]) -> bool:
    """Answer one request; False when it was the last."""
    own = {"id": request["id"]} if "id" in request else {}
    if "failed" in request:
        _emit({**row(request["failed"]), **own})
        _emit({"event": "done", **own})
        return True
    events: Iterator[Event] = perform(request)
    for event in events:
        _emit({**row(event), **own})
        if isinstance(event, Left):
            return False
    _emit({"event": "done", **own})
    return True


def _emit(record: dict[str, Any]) -> None:
    console.json_line(record)
    if sys.stdout is not None:  # closed by whoever started this
        sys.stdout.flush()


class _Reader:
    """Reads ahead in a thread, so that a stop reaches the answer that is being given.

    A stop ends every request that came before it, begun or not, and none that comes after.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queue: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._read = self._begun = self._stopped = 0

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="gama-requests").start()

    def requests(self) -> Iterator[tuple[int, dict[str, Any]]]:
        while (item := self._queue.get()) is not None:
            yield item

    def begin(self, number: int) -> None:
        """Request ``number`` is what a stop would end from now on."""
        with self._lock:
            self._begun = number
            if number <= self._stopped:
                self._session.stop.set()
            else:
                self._session.stop.clear()

    def _run(self) -> None:
        try:
            if sys.stdin is not None:  # closed by whoever started this
                for line in _lines(sys.stdin.fileno()):
                    if line is None or line.strip():
                        self._take(line)
        except OSError as error:
            failed = Failed(f"requests cannot be read: {error.strerror or error}")
            self._queue.put((self._read + 1, {"failed": failed}))
        finally:
            self._queue.put(None)

    def _take(self, line: bytes | None) -> None:
        request = _too_long() if line is None else _parsed(line)
        with self._lock:
            if request.get("do") == "stop":
                self._stopped = self._read
                if self._begun <= self._stopped:
                    self._session.stop.set()
                return
            self._read += 1
            self._queue.put((self._read, request))


def _lines(descriptor: int) -> Iterator[bytes | None]:
    """Lines of a file descriptor; None for one that is longer than :data:`LONGEST_LINE`.

    Not of ``sys.stdin``: a thread that waits in its buffer when the program ends keeps it from ending.
    """
    rest, is_too_long = bytearray(), False
    while block := _read(descriptor):
        first, *others = block.split(b"\n")
        rest += first
        for piece in others:
            yield None if is_too_long or len(rest) > LONGEST_LINE else bytes(rest)
            rest, is_too_long = bytearray(piece), False
        if len(rest) > LONGEST_LINE:
            rest, is_too_long = bytearray(), True
    yield None if is_too_long else bytes(rest)


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, 65536)
        except BlockingIOError:  # whoever started this does not wait for its own end of the pipe
            select.select([descriptor], [], [])


def _too_long() -> dict[str, Any]:
    return {"failed": Failed(f"a line has more than {LONGEST_LINE} bytes", "a request is one short line of JSON")}


def _parsed(line: bytes) -> dict[str, Any]:
    """A request, or what is wrong with it under ``failed``."""
    try:
        request = read_json(line)
    except ValueError as error:
        return {"failed": Failed(f"a line is not JSON: {error}", 'such as {"do": "ask", "question": "what happened?"}')}
    own: dict[str, Any] = {}
    try:
        own = request_id(request)
        return checked(request)
    except GamaError as error:
        return {"failed": Failed(error.message, error.hint), **own}


@contextmanager
def _stopping(session: Session) -> Iterator[None]:
    """SIGINT stops the answer that is being given; without one, or soon after another, it ends the program."""
    last = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if not session.is_answering or last - before < _AGAIN or interrupts.pending():
            interrupts.interrupt(number, frame)
        session.stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
