"""YAML of settings: plain values come through, bombs are refused in one line before they unfold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gama import plain_yaml
from gama.plain_yaml import PlainYamlError, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, null, true]\n", {"a": 1, "b": ["x", 2.5, None, True]}),
        ("base: &b {x: 1}\nother: *b", {"base": {"x": 1}, "other": {"x": 1}}),
        ("base: &b {x: 1}\nother: {<<: *b, y: 2}", {"base": {"x": 1}, "other": {"x": 1, "y": 2}}),
        ("", None),
        ("a: .nan", {"a": pytest.approx(float("nan"), nan_ok=True)}),
        (f"a: {2**63}", {"a": 2**63}),
        ("[" * 32 + "]" * 32, None),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    assert value is None or parse(text) == value
    parse(text)


_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_LAUGHS, "line 5: more than 20000 values, those that aliases stand for counted"),
        ("[" * 100_000, "line 1 is nested more than 32 deep"),
        ("{a: " * 100_000, "line 1 is nested more than 32 deep"),
        ("\n".join(" " * i + "a:" for i in range(400)), "line 33 is nested more than 32 deep"),
        ("- " * 50_000 + "a", "line 1 is nested more than 32 deep"),
        ("a: &a [*a]", "line 1: the alias 'a' stands for nothing, or for itself"),
        ("a: *b", "line 1: the alias 'b' stands for nothing"),
        ("[" + "1," * 30_000 + "]", "more than 20000 values"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 0x" + "f" * 5000, "holds a whole number beyond 64 bits"),
        (f"a: {2**63 + 1}", "holds a whole number beyond 64 bits"),
        ('a: "\\ud83d"', "holds half of a surrogate pair"),
        ("a: 2001-01-01", "holds the date 2001-01-01; put it in quotes"),
        ("a: 2001-99-99", "month must be in"),
        ("a: !!python/object/apply:os.getcwd []", "line 1 carries the tag 'tag:yaml.org,2002:python/object/apply"),
        ("a: !!binary aGk=", "carries the tag"),
        ("a: 1\nb: ! x", "line 2 carries the tag"),
        ("? [a]\n: b", "unhashable key"),
        ("a: 0b_", "invalid literal"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: [", "while parsing a flow node"),
        ("a: \x07", "unacceptable character"),
        ("%TAG ! x\n%TAG ! y\na: b", "duplicate tag handle|while"),
    ],
)
def test_what_is_not_plain(text: str, message: str) -> None:
    begun = time.monotonic()
    with pytest.raises(PlainYamlError, match=message) as caught:
        parse(text)
    assert time.monotonic() - begun < 20
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff", "is not text in UTF-8: .*can't decode"),
        ("a: 1".encode("utf-16"), "is not text in UTF-8"),
        (b"a: " + b"x" * plain_yaml.LARGEST, "is larger than 256 KiB"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(PlainYamlError, match=message):
        read(path)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes("\ufeffa: ä".encode())
    assert read(path) == {"a": "ä"}
    with pytest.raises(PlainYamlError, match="no such file"):
        read(tmp_path / "none.yaml")
    with pytest.raises(PlainYamlError, match="cannot be read: Is a directory"):
        read(tmp_path)
