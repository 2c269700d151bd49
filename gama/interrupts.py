"""Ctrl-C and SIGTERM end a command once, in order, and within moments. The standard library alone.

Python raises KeyboardInterrupt wherever the main thread happens to be, and code that is called from C (a file that
libsndfile reads through callbacks, a weak reference's callback, a ``__del__``) can only print it and go on. So the
handler remembers that a signal came: loops over blocks ask :func:`check`, and a watch raises the exception again where
it was lost, which it knows by the exception's being gone while the command still runs. At the end the interpreter is
not taken down: threads in native code would be waited for, or would abort the process.
"""

from __future__ import annotations

import _thread
import atexit
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the number of SIGINT, as shells count it."""
_WATCH = 0.1  # seconds between two looks at whether the exception is still on its way
_PATIENCE = 2.0  # seconds in which a second Ctrl-C does not disturb the end that the first one began
_LAST_WORDS = 1.5  # seconds for exit functions
_IMPORT = 0.7  # seconds in which an import may come to its end
_WAKING = signal.SIGURG if hasattr(signal, "SIGURG") else signal.SIGINT  # means nothing to anybody here
_PAUSES = (0.01, 0.1, 0.3)  # seconds: once is enough unless the wait has not begun


class Interrupted(KeyboardInterrupt):
    """Ctrl-C."""


class Terminated(BaseException):
    """SIGTERM. No SystemExit: native code that prints what it cannot pass on would exit there and then."""


STOPPED = (KeyboardInterrupt, Terminated)
"""What a command catches that says how to go on; it raises it again."""


class _State:
    """What has come.

    Attributes:
        number: of the first signal; 0 before there is one.
        raised: the exception, as long as somebody holds it.
        at: when it was raised.
        is_watched: whether the watch runs.
        since: when the first signal came.
        heard: the end of a pipe into which Python writes the number of every signal as it comes.
        is_ending: the exception has arrived where the process ends.
        is_finished: the command had ended before any signal came.
    """

    def __init__(self) -> None:
        self.number = 0
        self.raised: weakref.ref[BaseException] | None = None
        self.at = 0.0
        self.is_watched = False
        self.since = 0.0
        self.heard: int | None = None
        self.is_ending = False
        self.is_finished = False

    def is_on_its_way(self) -> bool:
        return self.raised is not None and self.raised() is not None


_state = _State()


def pending() -> bool:
    """Whether a signal came and the process is to end."""
    return _state.number != 0


def status() -> int:
    """The exit status that the signal asks for."""
    return 128 + _state.number


def check() -> None:
    """Raise what a signal asks for, if one came; for loops whose body may swallow it, and for other threads."""
    if _state.number and not _state.is_ending:
        raise _exception()


@contextmanager
def checked() -> Iterator[None]:
    """An error of the block that a signal has caused becomes the signal's own exception; so does a quiet end."""
    try:
        yield
    except Exception:
        check()
        raise
    check()


def clear() -> None:
    """The exception was caught, and the command goes on as it should."""
    _state.number, _state.raised = 0, None


def interrupt(number: int, frame: FrameType | None) -> None:
    """The handler of both signals.

    Raises:
        Interrupted, Terminated: where the command runs; nothing where an earlier one is still on its way.
    """
    if _state.is_finished:
        _state.number = number
        _exit()
    if not _state.number:
        _state.number, _state.since = number, time.monotonic()
    if _state.is_ending or (_state.is_on_its_way() and time.monotonic() - _state.at < _PATIENCE):
        return
    if not _state.is_watched:
        _state.is_watched = True
        _thread.start_new_thread(_watch, ())  # threading's own start takes a lock that this thread may hold
    if not _is_importing(frame):
        raise _exception()
    if time.monotonic() - _state.since > _IMPORT:
        _state.is_ending = True
        _leave()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: torch's C++ aborts the process on an exception that passes through it then.

    The watch comes again when that may be over; nothing is written meanwhile, so a long import may be left for good.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _exception() -> BaseException:
    error: BaseException = Interrupted() if _state.number == signal.SIGINT else Terminated()
    if threading.current_thread() is threading.main_thread():
        _state.raised, _state.at = weakref.ref(error), time.monotonic()
    return error


def _watch() -> None:
    ended = 0.0
    while True:
        time.sleep(_WATCH)
        if _state.is_ending:
            ended += _WATCH
            if ended > _LAST_WORDS:
                os._exit(status())
        elif _state.number and not _state.is_on_its_way():
            _signal_main()


def _signal_main() -> None:
    if hasattr(signal, "pthread_kill"):  # it ends a wait in the system, too
        signal.pthread_kill(threading.main_thread().ident or 0, _state.number)
    else:
        _thread.interrupt_main(signal.Signals(_state.number))


def listen() -> None:
    """Have the main thread woken where a signal reaches another thread, or just before the main thread waits.

    Whatever runs an event loop of its own takes this away; call it again afterwards.
    """
    if not hasattr(signal, "pthread_kill"):
        return
    if _state.heard is None:
        reader, _state.heard = os.pipe()
        os.set_blocking(_state.heard, False)
        _thread.start_new_thread(_wake_main, (reader,))
    if signal.getsignal(_WAKING) == signal.SIG_DFL:
        signal.signal(_WAKING, lambda number, frame: None)
    signal.set_wakeup_fd(_state.heard, warn_on_full_buffer=False)


def _wake_main(reader: int) -> None:
    """End the main thread's wait in the system, so that Python calls the handler of what came."""
    own = bytes([_WAKING])
    main = threading.main_thread().ident or 0
    while came := os.read(reader, 64):
        if came.strip(own):
            for pause in _PAUSES:
                time.sleep(pause)
                signal.pthread_kill(main, _WAKING)


def run(command: Callable[[], None]) -> None:
    """Run a command with the handlers in place; a signal ends the process, anything else passes through.

    Where SIGINT is ignored, as for a shell's background job, it stays ignored. In another thread than the main one
    the handlers are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        command()
        return
    _state.is_finished = False
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL, interrupt):
            signal.signal(number, interrupt)
    listen()
    _silence_callbacks()
    try:
        command()
    except BaseException:
        _state.is_ending = pending()
        if not pending():
            _state.is_finished = True
            raise
    else:
        _state.is_ending, _state.is_finished = pending(), not pending()
    if pending():
        _leave()


def _silence_callbacks() -> None:
    """Nothing is printed of a signal's exception that C code could not pass on: the watch raises it again."""
    unraisable, uncaught = sys.unraisablehook, sys.excepthook

    def lost(what: Any) -> None:
        if not (pending() and isinstance(what.exc_value, STOPPED)):
            unraisable(what)

    def printed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (pending() and isinstance(error, STOPPED)):  # Cython prints those of its callbacks this way
            uncaught(kind, error, trace)

    sys.unraisablehook, sys.excepthook = lost, printed


def _leave() -> NoReturn:
    """Close what the command has left open, then end without waiting for threads."""
    _flush()
    gc.collect()  # generators that were left close their files
    atexit._run_exitfuncs()
    _exit()


def _exit() -> NoReturn:
    _flush()
    os._exit(status())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, RuntimeError, ValueError):  # nobody reads any more, or it is being flushed
            continue


@contextmanager
def thread_pool(workers: int, name: str = "") -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for at the end of the block, but not where a signal ends it."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers, name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=not pending(), cancel_futures=pending())


__all__ = [
    "INTERRUPTED",
    "STOPPED",
    "Interrupted",
    "Terminated",
    "check",
    "checked",
    "clear",
    "interrupt",
    "listen",
    "pending",
    "run",
    "status",
    "thread_pool",
]
