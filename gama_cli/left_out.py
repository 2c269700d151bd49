"""Rows that a command leaves out because they are malformed: the first are shown, all are counted."""

from __future__ import annotations

from gama_cli import console

_SHOWN = 5


class LeftOut:
    """Takes what is wrong with one row after the other.

    Attributes:
        count: rows so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            console.warn(str(error))

    def close(self) -> bool:
        """Say how many there were; whether there were any."""
        if self.count:
            more = f", {self.count - _SHOWN} of them not shown" if self.count > _SHOWN else ""
            console.warn(f"{self.count} malformed row(s) were left out{more}; gama prepare check lists them")
        return self.count > 0
