"""JSON values one after the other, from a list or one a line, without the whole file in memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.errors import ManifestError
from gama.text import shown

_CHUNK = 2**20  # bytes read at once
_LONGEST = 16 * 2**20  # characters of one row
_FORM = "a manifest is a JSON list of rows, or a row a line"
_WHITESPACE = " \t\n\r"
_NEAR_END = 16  # characters: an error this close to the end of what was read may be a row that is not read yet


def values(path: Path) -> Iterator[Any]:
    """The rows of a JSON list, or of JSON Lines, in order.

    Raises:
        ManifestError: naming file and row (line, for JSON Lines), when the file is there.
    """
    return (value for _, _, value in spans(path))


def spans(path: Path) -> Iterator[tuple[int, int, Any]]:
    """As :func:`values`, each with the bytes of the file where it begins and ends."""
    pieces = _text(path)
    with path.open("rb") as file:
        begin = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
    head = ""
    for piece in pieces:
        head += piece
        if head.strip(_WHITESPACE):
            break
    if head.lstrip(_WHITESPACE).startswith("["):
        yield from _List(path, pieces, head, begin).rows()
    else:
        yield from _lines(path, pieces, head, begin)


def _text(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    read = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            begin = read - len(decoder.getstate()[0])
            read += len(chunk)
            try:
                yield decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = begin + error.start
                raise ManifestError(f"{path}: not text in UTF-8: {error.reason} at byte {at}", _FORM) from None
            if not chunk:
                return


def _lines(path: Path, pieces: Iterator[str], head: str, begin: int) -> Iterator[tuple[int, int, Any]]:
    number, end = 0, begin - 1
    for piece in _chained(path, pieces, head):
        lines = piece.split("\n")  # splitlines would also split at U+2028 within a text
        for line in lines:
            number += 1
            begin, end = end + 1, end + 1 + len(line.encode())
            if line.strip():
                try:
                    yield begin, end, json.loads(line)
                except json.JSONDecodeError as error:
                    raise ManifestError(f"{path}: line {number} is not JSON: {error.msg}", _FORM) from None
                except RecursionError:
                    raise ManifestError(f"{path}: line {number} is nested too deep", _FORM) from None
                except ValueError as error:  # a number of more digits than Python reads
                    raise ManifestError(f"{path}: line {number} cannot be read: {shown(str(error))}", _FORM) from None


def _chained(path: Path, pieces: Iterator[str], head: str) -> Iterator[str]:
    """The text in pieces that end where a line ends."""
    rest = head
    for piece in pieces:
        if "\n" in rest:
            whole, _, rest = rest.rpartition("\n")
            yield whole
        if len(rest) > _LONGEST:
            raise ManifestError(f"{path}: a line is longer than {_LONGEST} characters", _FORM)
        rest += piece
    yield rest


@dataclass
class _List:
    """A JSON list, of which the text from the first row that is not read yet is held."""

    path: Path
    pieces: Iterator[str]
    text: str
    byte: int
    """Of the file, at the character ``counted``."""
    counted: int = 0
    at: int = 0
    ended: bool = False
    row: int = 0

    def rows(self) -> Iterator[tuple[int, int, Any]]:
        decoder = json.JSONDecoder()
        self._skip()
        self.at += 1  # the bracket
        if self._skip() != "]":
            while True:
                self.row += 1
                begin = self._byte()
                value = self._value(decoder)
                yield begin, self._byte(), value
                mark = self._skip()
                if mark == "]":
                    break
                if mark != ",":
                    raise self._error("a comma or the end of the list was expected")
                self.at += 1
                self._skip()
        self.at += 1
        if self._skip():
            raise self._error("more text stands behind the list")

    def _error(self, message: str) -> ManifestError:
        return ManifestError(f"{self.path}: row {self.row} is not JSON: {message}", _FORM)

    def _byte(self) -> int:
        """The byte of the file that ``at`` stands at."""
        self.byte += len(self.text[self.counted : self.at].encode())
        self.counted = self.at
        return self.byte

    def _more(self) -> bool:
        self._byte()
        piece = next(self.pieces, None)
        if piece is None:
            self.ended = True
            return False
        self.text, self.at, self.counted = self.text[self.at :] + piece, 0, 0
        return True

    def _skip(self) -> str:
        """The next character that is not white; empty at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _WHITESPACE:
                    return self.text[self.at]
                self.at += 1
            if not self._more():
                return ""

    def _value(self, decoder: json.JSONDecoder) -> Any:
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if not self._unfinished(error) or not self._more():
                    raise self._error(error.msg) from None
            except RecursionError:
                raise self._error("it is nested too deep") from None
            except ValueError as error:  # a number of more digits than Python reads
                raise self._error(shown(str(error))) from None
            else:
                if end < len(self.text) or not self._more():  # a number may go on
                    self.at = end
                    return value

    def _unfinished(self, error: json.JSONDecodeError) -> bool:
        begun = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _NEAR_END
        if begun and len(self.text) - self.at > _LONGEST:
            raise self._error(f"it is longer than {_LONGEST} characters")
        return begun and not self.ended
