"""What begins with a slash."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from gama.chat import files, playing, recording, report, rows, transcript
from gama.chat.describing import described
from gama.chat.events import Event, Failed, Left, Note, Shown
from gama.chat.paths import file_named, wanted
from gama.chat.settings import SETTINGS
from gama.errors import PromptError
from gama.text import printable

if TYPE_CHECKING:
    from gama.chat.session import Session

Run = Callable[["Session", str], Iterator[Event]]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: without its slash.
        usage: what follows it.
        help: one line.
        run: takes the session and the rest of the line.
        aliases: other names.
    """

    name: str
    usage: str
    help: str
    run: Run
    aliases: tuple[str, ...] = ()


def named(name: str) -> Command | None:
    """The command of that name, without its slash."""
    return next((command for command in COMMANDS if name in (command.name, *command.aliases)), None)


def unknown(name: str, line: str) -> Iterator[Event]:
    """What to say about a slash that begins no command."""
    if "/" in name:
        yield Failed(f"{printable(line)}: no such file", "commands: /help")
        return
    known = [known for command in COMMANDS for known in (command.name, *command.aliases)]
    near = difflib.get_close_matches(name, known, n=1)
    yield Failed(f"no command /{printable(name)}", f"did you mean /{near[0]}?" if near else "commands: /help")


# -- clips -----------------------------------------------------------------------------------------------------------


def _audio(session: Session, rest: str) -> Iterator[Event]:
    if not rest:
        raise PromptError("no clip is named", "/audio PATH [from-to] [as NAME]")
    yield from session.attach(wanted(rest))


def _record(session: Session, rest: str) -> Iterator[Event]:
    yield from recording.record(session, rest)


def _clips(session: Session, rest: str) -> Iterator[Event]:
    lines, data = [], []
    about = session.fresh or session.focus
    for clip in session.shelf:
        mark = "*" if clip.name in about else " "
        lines.append(f"{mark} {clip.name}  {described(clip.facts)}  {printable(str(clip.path))}")
        data.append({"name": clip.name, "path": str(clip.path), "in_focus": clip.name in about, **clip.facts})
    if not lines:
        yield Note("no clips yet: type a path, or /audio PATH")
        return
    yield Shown("\n".join([*lines, "* is what the next question is about"]), {"clips": data})


def _drop(session: Session, rest: str) -> Iterator[Event]:
    names = rest.split()
    if not names:
        if len(session.shelf.names) != 1:
            raise PromptError("no clip is named", f"/drop NAME; there are: {', '.join(session.shelf.names) or 'none'}")
        names = list(session.shelf.names)
    for name in names:
        clip = session.drop(name)
        about = sum(clip.name in exchange.clips for exchange in session.exchanges)
        told = f"; the model is no longer told {about} turn(s) about it" if about else ""
        yield Note(f"dropped {clip.name}{told}")


def _play(session: Session, rest: str) -> Iterator[Event]:
    about = session.fresh or session.focus
    name = rest or (about[-1] if about else "")
    if not name:
        raise PromptError("no clip is named", "/play NAME")
    yield from playing.play(session.shelf.named(name))


# -- the model -------------------------------------------------------------------------------------------------------


def _model(session: Session, rest: str) -> Iterator[Event]:
    if rest:
        yield Note(f"loading {printable(rest)} …")
        session.use(replace(session.model, model=rest))
    yield report.model(session)


def _quant(session: Session, rest: str) -> Iterator[Event]:
    if rest:
        yield Note(f"loading with quantization {printable(rest)} …")
        session.use(replace(session.model, quant=rest))
    yield report.model(session)


def _set(session: Session, rest: str) -> Iterator[Event]:
    key, _, value = rest.replace("=", " ", 1).partition(" ")
    if not key:
        values = asdict(session.settings)
        width = max(map(len, SETTINGS))
        yield Shown("\n".join(f"{k.ljust(width)}  {_or_none(values[k])}" for k in SETTINGS), {"settings": values})
        return
    if value.strip():
        session.settings = session.settings.changed(key, value.strip())
        session.untold = 0
    elif key not in SETTINGS:
        session.settings.changed(key, "")  # says which there are
    yield Note(f"{key} is {_or_none(getattr(session.settings, key))}")


def _system(session: Session, rest: str) -> Iterator[Event]:
    if rest:
        session.system = "" if rest == "none" else rest
    yield Note(f"system: {printable(session.system)}" if session.system else "no system text")


# -- the conversation ------------------------------------------------------------------------------------------------


def _retry(session: Session, rest: str) -> Iterator[Event]:
    yield from session.retry()


def _undo(session: Session, rest: str) -> Iterator[Event]:
    yield Note(f"taken back: {printable(session.undo().question)}")


def _clear(session: Session, rest: str) -> Iterator[Event]:
    session.clear()
    kept = f"; still there: {', '.join(session.shelf.names)}" if session.shelf.names else ""
    yield Note(f"questions and answers are forgotten{kept}")


def _good(session: Session, rest: str) -> Iterator[Event]:
    exchange = session.judge("good", rest)
    yield Note(f"good: {printable(exchange.correction or exchange.answer)}")


def _bad(session: Session, rest: str) -> Iterator[Event]:
    session.judge("bad")
    yield Note("marked as bad; if you know the answer: /good ANSWER")


# -- files -----------------------------------------------------------------------------------------------------------


def _save(session: Session, rest: str) -> Iterator[Event]:
    target = files.target(rest, "/save FILE.md or /save FILE.json")
    text = transcript.written(session, target.path)
    files.write(target, text, session.shelf.paths)
    yield Note(f"saved {len(session.exchanges)} turn(s) to {printable(str(target.path))}")


def _load(session: Session, rest: str) -> Iterator[Event]:
    path = file_named(rest)
    transcript.load(session, path)
    clips = f" about {', '.join(session.shelf.names)}" if session.shelf.names else ""
    yield Note(f"loaded {len(session.exchanges)} turn(s){clips} from {printable(str(path))}")


def _export(session: Session, rest: str) -> Iterator[Event]:
    target = files.target(rest, "/export-manifest FILE")
    count, left_out = rows.export(session, target)
    yield Note(f"wrote {count} row(s) to {printable(str(target.path))}; train on them: gama train --data")
    for reason in left_out:
        yield Note(f"left out: {reason}")


# -- the session -----------------------------------------------------------------------------------------------------


def _stats(session: Session, rest: str) -> Iterator[Event]:
    yield report.stats(session)


def _help(session: Session, rest: str) -> Iterator[Event]:
    if rest:
        command = named(rest.removeprefix("/"))
        if command is None:
            yield from unknown(rest.removeprefix("/"), rest)
            return
        yield Shown(f"/{command.name} {command.usage}".rstrip() + f"\n  {command.help}")
        return
    heads = [f"/{c.name} {c.usage}".rstrip() for c in COMMANDS]
    width = max(map(len, heads))
    lines = [f"{head.ljust(width)}  {c.help}" for head, c in zip(heads, COMMANDS, strict=True)]
    yield Shown("\n".join([*lines, *_HINTS]))


def _exit(session: Session, rest: str) -> Iterator[Event]:
    yield Left()


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)


_HINTS = (
    "",
    "Type or drag a path to add a clip. Without new clips a question is about those of the question before;",
    "@name before a question picks clips, @all takes every one. The model is told earlier turns only after",
    "/set memory last or /set memory full.",
)

COMMANDS: tuple[Command, ...] = (
    Command("audio", "PATH [from-to] [as NAME]", "Add a clip, or a span of it: 12-20, 1:05-1:15.", _audio),
    Command("record", "[SECONDS]", "Record a clip from the microphone.", _record),
    Command("clips", "", "List the clips.", _clips),
    Command("drop", "NAME…", "Let go of a clip.", _drop),
    Command("play", "[NAME]", "Play a clip.", _play),
    Command("retry", "", "Ask the last question again.", _retry),
    Command("undo", "", "Take back the last question and its answer.", _undo),
    Command("clear", "", "Forget all questions and answers; keep the clips.", _clear),
    Command("good", "[ANSWER]", "The last answer is right, or should have been ANSWER.", _good),
    Command("bad", "", "The last answer is wrong.", _bad),
    Command("set", "[KEY VALUE]", f"Show or change: {', '.join(SETTINGS)}.", _set),
    Command("system", "[TEXT|none]", "Tell the model something before everything.", _system),
    Command("model", "[DIR|NAME]", "Show or change the model.", _model),
    Command("quant", "[none|8bit|4bit]", "Hold the language model in 8 or 4 bits.", _quant),
    Command("save", "FILE [--force]", "Write the conversation as Markdown (.md) or JSON (.json).", _save),
    Command("load", "FILE", "Go on with a conversation saved as JSON.", _load),
    Command("export-manifest", "FILE [--force]", "Write the good answers as rows for gama train.", _export),
    Command("stats", "", "Tokens, times, and what is kept.", _stats),
    Command("help", "[COMMAND]", "This list, or one command.", _help, ("?",)),
    Command("exit", "", "Leave; Ctrl-D does the same.", _exit, ("quit", "bye")),
)

__all__ = ["COMMANDS", "Command", "named", "unknown"]
