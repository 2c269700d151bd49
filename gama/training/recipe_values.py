"""Whether a value read from YAML has the type that a field asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from gama.text import lone_surrogate

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


class Unfit(ValueError):
    """The value has another type; the message says what was expected."""


def fit(value: Any, kind: Any) -> Any:
    """The value as the type asks for it: lists become tuples, whole numbers and ``1e-3`` (text in YAML) floats.

    Args:
        value: as YAML gives it.
        kind: an annotation of plain values; one that is not plain admits every value.

    Raises:
        Unfit: where the value is of another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _fit_any(value, inner)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise Unfit(f"a list of {_WORDS.get(inner[0], 'values')}s")
        return tuple(fit(item, inner[0]) for item in value)
    plain = origin or kind
    if plain is float:
        return _number(value)
    if plain is dict or plain is Mapping:
        plain, words = dict, "keys and values"
    elif plain in _WORDS:
        words = _WORDS[plain]
    else:
        return value
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise Unfit(words)
    if plain is str and lone_surrogate(value) is not None:
        raise Unfit("text, and it holds half of a surrogate pair")
    return value


def _fit_any(value: Any, kinds: tuple[Any, ...]) -> Any:
    expected = []
    for kind in kinds:
        try:
            return fit(value, kind)
        except Unfit as error:
            expected.append(str(error))
    raise Unfit(" or ".join(expected))


def _number(value: Any) -> float:
    """YAML 1.1 reads ``1e-3`` as text."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise Unfit(_WORDS[float]) from None
        if math.isfinite(number):
            return number
    raise Unfit(_WORDS[float])
