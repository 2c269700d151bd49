"""YAML of settings: plain values of bounded size, whoever wrote the file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import yaml

from gama.text import lone_surrogate

LARGEST = 256 * 1024
"""Bytes of a file."""
_DEEPEST = 32  # lists and mappings within each other
_MOST_NODES = 20_000  # aliases counted as often as they stand for something
_LARGEST_INT = 2**63


class PlainYamlError(ValueError):
    """Text that is not plain YAML; the message says why, without the name of a file."""


def read(path: Path) -> Any:
    """The values of a file.

    Raises:
        PlainYamlError: for a file that cannot be read, is too large, is not UTF-8 or not plain YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise PlainYamlError("no such file") from None
    except OSError as error:
        raise PlainYamlError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST:
        raise PlainYamlError(f"is larger than {LARGEST // 1024} KiB, which no file of settings is")
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PlainYamlError(f"is not text in UTF-8: {error}") from None


def parse(text: str) -> Any:
    """The values of a text: None, bool, int, float, str, and lists and mappings of them.

    Raises:
        PlainYamlError: for tags, dates, aliases that stand for more than they may, nesting without end, numbers beyond
            64 bits, or what is not YAML at all.
    """
    try:
        _check_events(text)
        value = yaml.safe_load(text)
    except PlainYamlError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError, TypeError, AttributeError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise PlainYamlError(message[:300]) from None
    _check_value(value)
    return value


def _check_events(text: str) -> None:
    """Tags, depth and the size that aliases unfold to, before any value is made."""
    sizes: dict[str, int] = {}  # nodes that an anchor stands for
    opened: list[tuple[str | None, int]] = []  # anchor of each open collection, and the nodes before it
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = 0 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise PlainYamlError(f"line {line}: the alias {event.anchor!r} stands for nothing, or for itself")
            nodes += sizes[event.anchor]
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            if event.tag is not None:
                raise PlainYamlError(f"line {line} carries the tag {event.tag!r}")
            nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, nodes - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if len(opened) > _DEEPEST:
            raise PlainYamlError(f"line {line} is nested more than {_DEEPEST} deep")
        if nodes > _MOST_NODES:
            raise PlainYamlError(f"line {line}: more than {_MOST_NODES} values, those that aliases stand for counted")


def _check_value(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_value(key)
            _check_value(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner)
    elif isinstance(value, int) and abs(value) > _LARGEST_INT:
        raise PlainYamlError("holds a whole number beyond 64 bits")
    elif isinstance(value, str) and lone_surrogate(value) is not None:
        raise PlainYamlError("holds half of a surrogate pair, which is no character")
    elif isinstance(value, datetime.date):
        raise PlainYamlError(f"holds the date {value}; put it in quotes")


__all__ = ["LARGEST", "PlainYamlError", "parse", "read"]
