"""The JSON form of a session: one request a line comes in, one event a line goes out.

Requests: ``{"do": "ask", "question": …, "clips": […]}``, ``{"do": "attach", "path": …, "from": …, "to": …,
"name": …}``, ``{"do": "line", "text": …}`` for whatever can be typed, ``{"do": "stop"}``, ``{"do": "end"}``. An ``id``
in a request comes back in each of its events.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gama.chat.events import Event, Left
from gama.chat.paths import Wanted
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


def checked(request: Any) -> dict[str, Any]:
    """A request that makes sense.

    Raises:
        PromptError: for anything else; it says what was expected.
    """
    if not isinstance(request, dict):
        raise PromptError(f"a request is {type(request).__name__}, an object was expected")
    do = request.get("do")
    if not isinstance(do, str) or do not in _FIELDS:
        raise PromptError(f"a request does {do!r}", f"known: {', '.join(_FIELDS)}")
    fields = _FIELDS[do]
    for name in request:
        if name not in (*fields, "do", "id"):
            raise PromptError(f"a request to {do} has a field {name!r}", f"known: {', '.join(fields) or 'none'}")
    for name, kinds in fields.items():
        value = request.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise PromptError(f"{name!r} of a request to {do} is {value!r}, {_worded(kinds)} was expected")
    if any(not isinstance(name, str) for name in request.get("clips") or []):
        raise PromptError("'clips' of a request to ask are names of clips")
    return request


def perform(session: Session, request: dict[str, Any]) -> Iterator[Event]:
    """Do what a checked request asks for."""
    do = request["do"]
    if do == "ask":
        yield from session.ask(request["question"], request.get("clips"))
    elif do == "attach":
        path = Path(request["path"]).expanduser()
        yield from session.attach(Wanted(path, request.get("from"), request.get("to"), request.get("name")))
    elif do == "line":
        yield from session.line(request["text"])
    elif do == "end":
        yield Left()


def _worded(kinds: tuple[type, ...]) -> str:
    words = {str: "text", list: "a list", int: "a number", float: "", type(None): ""}
    return " or ".join(words[kind] for kind in kinds if words[kind])


__all__ = ["checked", "perform"]
