from __future__ import annotations

import pytest

from gama.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip.wav", "clip.wav"),
        ("Straße 東京 🐕 नमस्ते مرحبا", "Straße 東京 🐕 नमस्ते مرحبا"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\tand\rmore", r"two\x0alines\x09and\x0dmore"),
        ("nul\0del\x7fcsi\x9b", r"nul\x00del\x7fcsi\x9b"),
        ("gpj.\u202egnp.exe\u2066x", r"gpj.\u202egnp.exe\u2066x"),
        ("line\u2028end\ufeff", r"line\u2028end\ufeff"),
        ("in\u200bvoi\u2060ce\u200d.wav", r"in\u200bvoi\u2060ce\u200d.wav"),
        ("a\U000e0041\U000e007f.wav", r"a\U000e0041\U000e007f.wav"),
        ("\u200dx", r"\u200dx"),
        ("👨\u200d👩\u200d👧 می\u200cخواهم क्\u200dष", "👨\u200d👩\u200d👧 می\u200cخواهم क्\u200dष"),
        ("\udce9t\udce9", r"\xe9t\xe9"),
        ("\ud83d", r"\ud83d"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode("utf-8")
