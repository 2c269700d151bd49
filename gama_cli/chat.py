"""``gama chat``: a conversation about sounds, in a terminal, through a pipe, or as JSON for other programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gama.checkpoints.bundled import model_folder, names
from gama.prompt import template_named
from gama_cli import console
from gama_cli.ask_clips import cache_of
from gama_cli.options import (
    cache_options,
    channel_option,
    json_option,
    max_duration_option,
    model_options,
    runtime_options,
    threads_option,
)
from gama_cli.sampling_options import generation_options

if TYPE_CHECKING:
    from gama.chat.events import Event
    from gama.chat.session import Session
    from gama.chat.settings import Model
    from gama.inference.turns import Voice

Perform = Callable[[dict[str, Any]], "Iterator[Event]"]
"""Takes a request and gives the events; the log is written on the way."""


@click.command()
@click.argument("clips", nargs=-1, type=click.Path(readable=False), metavar="[CLIP]…")
@click.option(
    "--memory",
    type=click.Choice(["full", "last", "none"]),
    default="none",
    show_default=True,
    help="How much of the conversation goes with a question: all of it, the turn before, nothing but the clips.",
)
@click.option("--system", metavar="TEXT", help="Tell the model this before everything.")
@click.option("--picture/--no-picture", default=True, show_default=True, help="Draw each clip that is added.")
@channel_option
@max_duration_option
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Append the session here.")
@click.option(
    "--replay",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Go through a log again and compare the answers.",
)
@model_options
@runtime_options
@threads_option
@cache_options
@generation_options
@json_option
def chat(
    clips: tuple[str, ...], system: str | None, picture: bool, log: Path | None, replay: Path | None, **options: Any
) -> None:
    """Talk about CLIPs: questions, more clips, commands (/help lists them).

    In a terminal answers stream in; Ctrl-C stops an answer, Ctrl-D leaves. Through a pipe every line is a question, a
    path or a command, and stdout gets the answers alone. With --json every line in is a request and every line out an
    event; docs/chat.md lists them.

    \b
    Examples:
      gama chat clip.wav
      gama chat before.wav after.wav --memory full
      echo "what happened?" | gama chat clip.wav
      gama chat --json < requests.jsonl
    """
    from gama.chat.voices import open_voice

    _check_names(options)
    if replay is not None:
        raise SystemExit(_replay(replay, options))
    status = run(open_voice, clips, system=system, picture=picture, log=log, options=options)
    raise SystemExit(status)


def run(
    open_voice: Callable[[Model], Voice],
    clips: tuple[str, ...],
    *,
    system: str | None = None,
    picture: bool = True,
    log: Path | None = None,
    options: dict[str, Any],
) -> int:
    """Hold one session and return the exit status.

    Args:
        open_voice: loads a model.
        clips: paths to begin with.
        options: values of the command's other options.
    """
    session = _session(open_voice, options)
    session.system = system or ""
    with ExitStack() as stack:
        perform = _performing(session, log, clips, stack)
        beginning = [{"do": "attach", "path": clip} for clip in clips]
        if options["as_json"]:
            from gama_cli.chat_json import hold as hold_json

            status = hold_json(session, perform, beginning)
        elif _isatty(sys.stdin) and (_isatty(sys.stderr) or _isatty(sys.stdout)):
            from gama_cli.chat_terminal import Terminal

            if session.model.model in (None, *names()):
                session.warm()  # small; a large model is loaded in sight, with its progress
            status = Terminal(session, perform, picture=picture).hold(beginning)
        else:
            from gama_cli.chat_plain import hold as hold_plain

            status = hold_plain(session, perform, beginning)
    _leave_loading_behind(session, status)
    return status


def _session(open_voice: Callable[[Model], Voice], options: dict[str, Any]) -> Session:
    from gama.chat import voices
    from gama.chat.session import Session
    from gama.chat.settings import SETTINGS, Model, Settings

    kept = cache_of(options)
    given = options | {"cache": None if kept is None else str(kept[0])}
    return Session(
        open_voice,
        model=Model(**{field.name: given[field.name] for field in fields(Model)}),
        settings=Settings(**{key: options[key] for key in SETTINGS}),
        hearing={key: options[key] for key in ("channel", "max_duration")},
        check=voices.check,
    )


def _check_names(options: dict[str, Any]) -> None:
    """Refuse an unknown model or template before the session begins."""
    model_folder(options["model"])
    if options["template"] is not None:
        template_named(options["template"])


def _performing(session: Session, log: Path | None, clips: tuple[str, ...], stack: ExitStack) -> Perform:
    from gama.chat.log import Log
    from gama.chat.protocol import perform

    if log is None:
        return lambda request: perform(session, request)
    written = Log(log, session, clips)
    stack.callback(written.close)
    return lambda request: written.watched(request, perform(session, request))


def _isatty(stream: Any) -> bool:
    """Whether a stream is a terminal; a closed one is None."""
    return stream is not None and bool(stream.isatty())


def _leave_loading_behind(session: Session, status: int) -> None:
    """End here when the model is still on its way: the interpreter would wait for, or fall over, a thread in torch."""
    if session.is_loading:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)


def _replay(path: Path, options: dict[str, Any]) -> int:
    """Compare the answers of a log with those given now; 1 where any differs."""
    from gama.chat.log import replay
    from gama.chat.voices import open_voice

    def make(settings: Any) -> Session:
        session = _session(open_voice, options)
        session.settings = settings
        return session

    count = differing = 0
    for compared in replay(path, make):
        count += 1
        differing += not compared.is_same
        row = {"request": compared.request, "same": compared.is_same, "before": compared.before, "now": compared.now}
        if options["as_json"]:
            console.json_line(row)
        elif not compared.is_same:
            click.echo(f"then: {compared.before}\nnow:  {compared.now}")
    console.note(f"{count} answer(s) compared, {differing} differ")
    return 1 if differing else 0
