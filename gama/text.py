"""Text that came from outside, made safe to show on a terminal."""

from __future__ import annotations

import re
import reprlib
from typing import Any

# C0, DEL and C1 controls; Arabic letter mark, directional marks, embeddings and isolates; line and paragraph
# separators; byte order mark and interlinear marks; surrogates, in which Python carries undecodable file name bytes.
# Zero-width characters and tags, with which two names look the same; joiners stand in emoji and in Indic and Persian
# words, so those are shown between letters of such (they join nothing else).
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
    "|(?<![\u0600-\u0dff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
)

_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Escape what would move the cursor, colour, reorder or break a line.

    Controls and zero-width characters become ``\xNN`` (undecodable file name bytes too), ``\uNNNN`` or
    ``\UNNNNNNNN``; all other Unicode is left alone.
    """
    return _CONTROLS.sub(lambda match: _escape(ord(match.group())), text)


def shown(value: Any, longest: int = 80) -> str:
    """A value as Python writes it, cut to a length that fits in a message, whatever the value is."""
    limits = reprlib.Repr()
    limits.maxlevel, limits.maxstring, limits.maxother, limits.maxlong = 3, longest, longest, longest
    try:
        text = limits.repr(value)
    except Exception:  # an integer of more digits than Python writes; a repr of somebody else's that fails
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 2 * longest else f"{text[: 2 * longest]}…"


def lone_surrogate(text: str) -> int | None:
    """The index of the first half of a surrogate pair, which no encoding can hold; None where there is none."""
    if text.isascii():
        return None
    match = _SURROGATE.search(text)
    return None if match is None else match.start()


def json_text(value: Any, *, finite: bool = True) -> str:
    """JSON on one line: non-ASCII text as it is, control characters and surrogates escaped.

    Args:
        value: plain values.
        finite: whether NaN and infinities, which are not JSON, are refused with a ValueError.
    """
    import json

    text = json.dumps(value, ensure_ascii=False, allow_nan=not finite)
    return _CONTROLS.sub(lambda match: json.dumps(match.group())[1:-1], text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
