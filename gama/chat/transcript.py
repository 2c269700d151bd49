"""A conversation as a file: Markdown to read, JSON to go on with."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gama.chat.clips import Held, Shelf, held
from gama.chat.conversation import Exchange, Part
from gama.chat.files import MARK
from gama.chat.paths import Wanted
from gama.chat.protocol import read_json
from gama.chat.settings import SETTINGS, Settings
from gama.errors import AudioError, PromptError
from gama.inference.turns import Said
from gama.text import printable, shown

if TYPE_CHECKING:
    from gama.chat.session import Session

VERSION = 1
_LARGEST = 64 * 2**20  # bytes of a conversation
_HINT = "give a file written by /save FILE.json"
_FINISHES = ("stop", "length", "interrupted")


def written(session: Session, path: Path) -> str:
    """The conversation in the form that the file's ending asks for.

    Raises:
        PromptError: for another ending than .md or .json.
    """
    ending = path.suffix.lower()
    if ending == ".json":
        return json.dumps(_record(session), ensure_ascii=False, indent=2) + "\n"
    if ending in (".md", ".markdown"):
        return _markdown(session)
    raise PromptError(f"{printable(path.name)}: {ending or 'no ending'!s} was given, .md or .json was expected")


def _record(session: Session) -> dict[str, Any]:
    return {
        "format": MARK,
        "version": VERSION,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": asdict(session.model),
        "settings": asdict(session.settings),
        "system": session.system,
        "focus": list(session.fresh or session.focus),
        "clips": [_clip_record(clip) for clip in session.shelf.everything],
        "turns": [_turn_record(exchange) for exchange in session.exchanges],
    }


def _clip_record(clip: Held) -> dict[str, Any]:
    where = {"name": clip.name, "path": str(clip.path), "from": clip.start, "to": clip.end}
    return {**where, "dropped": clip.waveform is None, **clip.facts}


def _turn_record(exchange: Exchange) -> dict[str, Any]:
    return {
        "question": exchange.question,
        "clips": list(exchange.clips),
        "answer": exchange.answer,
        "verdict": exchange.verdict,
        "correction": exchange.correction,
        "windows": exchange.windows,
        "parts": [{"start": part.start, "end": part.end, **asdict(part.said)} for part in exchange.parts],
    }


def _markdown(session: Session) -> str:
    lines = [f"<!-- {MARK} {VERSION} -->", f"# Conversation with {printable(session.model.model or 'gama-mini')}", ""]
    if session.system:
        lines += [f"System: {_one_line(session.system)}", ""]
    if session.shelf.everything:
        lines += ["| clip | seconds | file | SHA-256 of the samples at 16 kHz |", "|---|---|---|---|"]
        for clip in session.shelf.everything:
            path = printable(str(clip.path)).replace("|", "\\|")
            lines.append(f"| {clip.name} | {clip.facts['duration_s']:.1f} | {path} | `{clip.sha256}` |")
        lines.append("")
    for exchange in session.exchanges:
        about = f" ({', '.join(exchange.clips)})" if exchange.clips else ""
        lines += [f"**{_one_line(exchange.question)}**{about}", ""]
        lines += [f"> {printable(line)}  " for line in exchange.answer.split("\n")]
        if exchange.verdict:
            right = f": {_one_line(exchange.correction)}" if exchange.correction else ""
            lines += [">", f"> *{exchange.verdict}{right}*"]
        lines.append("")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(printable(line) for line in text.split("\n"))


# -- reading ---------------------------------------------------------------------------------------------------------


def load(session: Session, path: Path) -> None:
    """Put a saved conversation in place of the session's; all of it, or nothing where anything is wrong.

    The model stays the one that is loaded.

    Raises:
        PromptError: for a file that is no transcript.
        AudioError: for a clip that is gone, or is no longer what it was.
    """
    record = _json(path)
    where = printable(str(path))
    _require(isinstance(record, dict) and record.get("format") == MARK, where, "it is no saved conversation")
    _require(
        record.get("version") == VERSION,
        where,
        f"its version is {shown(record.get('version'))}, {VERSION} was expected",
    )
    settings = _settings(_field(record, "settings", dict, where), where)
    system = _field(record, "system", str, where)
    clips = [_clip(r, where, session.hearing) for r in _records(record, "clips", where)]
    names = {clip.name for clip in clips}
    _require(len(names) == len(clips), where, "two of its clips have one name")
    turns = [_turn(r, f"{where}: turn {n}", names) for n, r in enumerate(_records(record, "turns", where), 1)]
    focus = _names(record, "focus", where, {clip.name for clip in clips if clip.waveform is not None})
    session.shelf, session.exchanges, session.system, session.settings = Shelf(clips), turns, system, settings
    session.focus, session.fresh, session.untold, session.unanswered = focus, (), 0, None


def _json(path: Path) -> Any:
    with path.open("rb") as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise PromptError(f"{printable(str(path))}: has more than {_LARGEST} bytes", _HINT)
    try:
        return read_json(text.decode("utf-8"))
    except ValueError as error:
        kind = (
            "a Markdown transcript is for reading" if path.suffix.lower() in (".md", ".markdown") else "it is not JSON"
        )
        raise PromptError(f"{printable(str(path))}: {kind}: {error}", _HINT) from None


def _clip(record: dict[str, Any], where: str, hearing: dict[str, Any]) -> Held:
    name = _field(record, "name", str, where)
    path = Path(_field(record, "path", str, where))
    sha256 = _field(record, "sha256", str, where)
    start, end = (_number(record, key, where) for key in ("from", "to"))
    if _field(record, "dropped", bool, where):
        known = {k: v for k, v in record.items() if k not in ("name", "path", "from", "to", "dropped")}
        _number(known, "duration_s", where)
        return Held(name, path, None, start, end, known)
    clip = held(Wanted(path, start, end), name, **hearing)
    if clip.sha256 != sha256:
        raise AudioError(
            f"{printable(str(path))}: the clip {shown(name)} is not what it was (SHA-256 {clip.sha256[:12]}…, "
            f"{sha256[:12]}… was expected)",
            "put the old file back, or begin a new conversation",
        )
    return clip


def _turn(record: dict[str, Any], where: str, names: set[str]) -> Exchange:
    verdict = _field(record, "verdict", str, where)
    _require(verdict in ("", "good", "bad"), where, f"its verdict is {shown(verdict)}")
    return Exchange(
        question=_field(record, "question", str, where),
        clips=_names(record, "clips", where, names),
        parts=tuple(_part(part, where) for part in _records(record, "parts", where)),
        windows=_field(record, "windows", int, where),
        verdict=verdict,
        correction=_field(record, "correction", str, where),
    )


def _part(record: dict[str, Any], where: str) -> Part:
    finish = _field(record, "finish", str, where)
    _require(finish in _FINISHES, where, f"an answer's finish is {shown(finish)}")
    start, end = (_number(record, key, where) for key in ("start", "end"))
    _require(start is not None and end is not None, where, "an answer's span is missing")
    counts = {
        k: _field(record, k, int, where) for k in ("prompt_tokens", "audio_tokens", "reused_tokens", "new_tokens")
    }
    times = {k: _number(record, k, where) or 0.0 for k in ("encode_s", "first_token_s", "total_s")}
    said = Said(text=_field(record, "text", str, where), finish=finish, **counts, **times)  # type: ignore[arg-type]
    return Part(start or 0.0, end or 0.0, said)


def _settings(record: dict[str, Any], where: str) -> Settings:
    settings = Settings()
    for key, value in record.items():
        _require(key in SETTINGS, where, f"it has a setting {shown(key)}")
        settings = settings.changed(key, "none" if value is None else str(value))
    return settings


def _names(record: dict[str, Any], key: str, where: str, known: set[str]) -> tuple[str, ...]:
    names = _field(record, key, list, where)
    for name in names:
        _require(
            isinstance(name, str) and name in known, where, f"{key!r} names a clip {shown(name)} that is not in it"
        )
    return tuple(names)


def _records(record: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    rows = _field(record, key, list, where)
    for row in rows:
        _require(isinstance(row, dict), where, f"{key!r} holds {type(row).__name__}, an object was expected")
    return rows


def _field(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    _require(fits, where, f"{key!r} is {shown(value)}, {kind.__name__} was expected")
    return value


def _number(record: dict[str, Any], key: str, where: str) -> float | None:
    value = record.get(key)
    fits = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    _require(fits, where, f"{key!r} is {shown(value)}, a number was expected")
    return value


def _require(fits: bool, where: str, what: str) -> None:
    if not fits:
        raise PromptError(f"{where}: {printable(what)}", _HINT)


__all__ = ["load", "written"]
