"""The JSON form of a session: one request a line comes in, one event a line goes out.

Requests: ``{"do": "ask", "question": …, "clips": […]}``, ``{"do": "attach", "path": …, "from": …, "to": …,
"name": …}``, ``{"do": "line", "text": …}`` for whatever can be typed, ``{"do": "stop"}``, ``{"do": "end"}``. An ``id``
in a request, text or a number, comes back in each of its events.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gama.chat.events import Event, Left
from gama.chat.paths import Wanted, home_expanded
from gama.errors import PromptError

if TYPE_CHECKING:
    from gama.chat.session import Session

_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "ask": {"question": (str,), "clips": (list, type(None))},
    "attach": {
        "path": (str,),
        "from": (int, float, type(None)),
        "to": (int, float, type(None)),
        "name": (str, type(None)),
    },
    "line": {"text": (str,)},
    "stop": {},
    "end": {},
}
_LONGEST_ID = 1000  # characters
_LARGEST = 1e9  # seconds; no clip has 30 years
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxlong = _shown.maxother = 60


def read_json(text: str | bytes) -> Any:
    """A JSON value as the standard has it.

    Raises:
        ValueError: for what is not JSON, NaN and Infinity among it, for numbers beyond what a float holds, and for
            lists in lists without end.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def checked(request: Any) -> dict[str, Any]:
    """A request that makes sense.

    Raises:
        PromptError: for anything else; it says what was expected.
    """
    if not isinstance(request, dict):
        raise PromptError(f"a request is {type(request).__name__}, an object was expected")
    request_id(request)
    do = request.get("do")
    if not isinstance(do, str) or do not in _FIELDS:
        raise PromptError(f"a request does {_shown.repr(do)}", f"known: {', '.join(_FIELDS)}")
    fields = _FIELDS[do]
    for name in request:
        if name not in (*fields, "do", "id"):
            raise PromptError(
                f"a request to {do} has a field {_shown.repr(name)}", f"known: {', '.join(fields) or 'none'}"
            )
    for name, kinds in fields.items():
        value = request.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool) or _is_out_of_range(value):
            raise PromptError(f"{name!r} of a request to {do} is {_shown.repr(value)}, {_worded(kinds)} was expected")
    if any(not isinstance(name, str) for name in request.get("clips") or []):
        raise PromptError("'clips' of a request to ask are names of clips")
    return request


def request_id(request: Any) -> dict[str, Any]:
    """What comes back in every event of a request: its ``id`` where it has one.

    Raises:
        PromptError: for an id that is neither text nor a number.
    """
    if not isinstance(request, dict) or "id" not in request:
        return {}
    given = request["id"]
    if isinstance(given, int):
        fits = -(2**63) <= given < 2**63
    else:
        fits = len(given) <= _LONGEST_ID if isinstance(given, str) else isinstance(given, float | None)
    if not fits:
        raise PromptError(
            f"the id of a request is {_shown.repr(given)}", f"give text up to {_LONGEST_ID} characters, or a number"
        )
    return {"id": given}


def _is_out_of_range(value: Any) -> bool:
    return isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST


def perform(session: Session, request: dict[str, Any]) -> Iterator[Event]:
    """Do what a checked request asks for; whatever goes wrong is an event."""
    return session.guarded(_performed(session, request))


def _performed(session: Session, request: dict[str, Any]) -> Iterator[Event]:
    do = request["do"]
    if do == "ask":
        yield from session.ask(request["question"], request.get("clips"))
    elif do == "attach":
        path = home_expanded(request["path"])
        yield from session.attach(Wanted(path, request.get("from"), request.get("to"), request.get("name")))
    elif do == "line":
        yield from session.line(request["text"])
    elif do == "end":
        yield Left()


def _worded(kinds: tuple[type, ...]) -> str:
    words = {str: "text", list: "a list", int: "a number", float: "", type(None): ""}
    return " or ".join(words[kind] for kind in kinds if words[kind])


__all__ = ["checked", "perform", "read_json", "request_id"]
