"""A model that is loaded while the person types."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gama.inference.turns import Voice

_GLANCE = 0.1  # seconds; so that Ctrl-C is noticed while waiting


class Opening:
    """A voice on its way.

    Args:
        open_voice: loads it; called at once, in a thread.
    """

    def __init__(self, open_voice: Callable[[], Voice]) -> None:
        self._open = open_voice
        self._voice: Voice | None = None
        self._error: BaseException | None = None
        self._finished = threading.Event()
        # a daemon: whoever leaves does not wait for weights that nobody will use
        threading.Thread(target=self._run, daemon=True, name="gama-opening").start()

    @property
    def is_done(self) -> bool:
        return self._finished.is_set()

    @property
    def is_ready(self) -> bool:
        """Whether it is here; not where it could not be loaded."""
        return self._voice is not None

    def result(self) -> Voice:
        """The voice; waits for it and raises what went wrong on the way."""
        # not by joining the thread: a join that Ctrl-C breaks off takes the thread for ended
        while not self._finished.wait(_GLANCE):
            pass
        if self._error is not None:
            raise self._error
        assert self._voice is not None
        return self._voice

    def _run(self) -> None:
        try:
            self._voice = self._open()
        except BaseException as error:  # raised again where the voice is wanted
            self._error = error
        finally:
            self._finished.set()


__all__ = ["Opening"]
