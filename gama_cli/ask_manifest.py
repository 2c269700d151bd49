"""``gama ask --manifest``: answers as JSON lines, to a file that a second run goes on with, a device or stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from gama import interrupts, processes
from gama.atomic import check_output, is_special, open_text
from gama.text import json_text, printable
from gama_cli import console
from gama_cli.ask_clips import cache_of, how_of, loading_of

if TYPE_CHECKING:
    from gama.inference.fleet import Done, Run, Tally, Work
    from gama.inference.launched import LaunchedRun

_TOLD = 20  # failures that are told one by one


def answer(manifest: Path, questions: tuple[str, ...], options: dict[str, Any], *, as_json: bool) -> None:
    """Answer a manifest.

    Args:
        manifest: its file.
        questions: asked about each clip, in place of what the rows ask.
        options: of the command.
        as_json: whether to print one object about the run.

    Raises:
        SystemExit: with 1 where a row has no answer.
    """
    launched = processes.count() > 1
    is_stream = options["out"] is None or is_special(options["out"])
    _check(options, launched=launched, is_stream=is_stream)
    work = _work(manifest, questions, options)
    resume, devices = options["resume"], options["devices"]
    if options["out"] is None:
        tally = _to_stream(work, console.json_line)
    elif is_stream:
        check_output(options["out"], [manifest])
        with open_text(options["out"]) as file:
            tally = _to_stream(work, lambda row: _put(file, row))
    elif launched:
        from gama.inference.launched import LaunchedRun

        together = LaunchedRun(work, resume=resume)
        if not together.is_first:
            _silently(together.done())
            return
        tally = _to_file(together, together.done())
    else:
        from gama.inference.fleet import Run

        run = Run(work, resume=resume)
        tally = _to_file(run, run.done(devices))
    _close(tally, as_json=as_json and options["out"] is not None)


def _check(options: dict[str, Any], *, launched: bool, is_stream: bool) -> None:
    kind = "" if options["out"] is None else f", and {printable(str(options['out']))} is a device"
    if is_stream and (options["devices"] or options["resume"]):
        raise click.UsageError(f"--devices and --resume need --out FILE{kind}")
    if launched and is_stream:
        raise click.UsageError(f"{processes.count()} processes were started, which need --out FILE{kind}")
    if launched and options["devices"]:
        raise click.UsageError(
            f"{processes.count()} processes were started, and --devices starts others: leave one of the two out"
        )


def _work(manifest: Path, questions: tuple[str, ...], options: dict[str, Any]) -> Work:
    from gama.data.remap import Remap
    from gama.inference.fleet import Work
    from gama.inference.hearing import asking

    return Work(
        manifest=manifest,
        questions=questions,
        out=options["out"] or Path(),
        how=asking(**how_of(options)),
        batch_size=options["batch_size"],
        loading=loading_of(options),
        cache=cache_of(options),
        remap=Remap(options["audio_root"], options["changes"]),
    )


def _to_file(run: Run | LaunchedRun, answers: Iterator[Done]) -> Tally:
    from gama.inference.fleet import Tally

    if run.kept:
        console.note(f"{run.kept} of {run.kept + run.left} answers are there already")
    tally = Tally()
    try:
        with console.progress(run.left, "asking") as advance:
            for done in answers:
                _add(tally, done)
                advance(1)
                if done.error and tally.failed <= _TOLD:
                    console.fail(done.error)
    except interrupts.STOPPED:
        console.note(f"{run.kept + tally.answered} of {run.kept + run.left} answers are kept; --resume goes on")
        raise
    return tally


def _add(tally: Tally, done: Done) -> None:
    """Count an answer, and warn of the level of its clip, once for each of the first clips."""
    tally.add(done)
    if done.warning and done.warning not in tally.warnings and len(tally.warnings) < _TOLD:
        tally.warnings.add(done.warning)
        console.warn(done.warning)


def _silently(answers: Iterator[Done]) -> None:
    """The first of several processes speaks for all, of Ctrl-C as well."""
    try:
        for _ in answers:
            pass
    except KeyboardInterrupt:
        raise SystemExit(interrupts.INTERRUPTED) from None


def _put(file: TextIO, row: object) -> None:
    file.write(f"{json_text(row)}\n")
    file.flush()


def _to_stream(work: Work, put: Callable[[object], None]) -> Tally:
    from gama.inference.batches import replies
    from gama.inference.fleet import Tally, told

    questions = list(work.asked())
    tally = Tally()
    found = replies(work.open, (q.request for q in questions), work.how, batch_size=work.batch_size)
    for question, reply in zip(questions, found, strict=True):
        put(question.line(reply))
        _add(tally, told(question, reply))
        if reply.error is not None and tally.failed <= _TOLD:
            console.fail(str(reply.error))
    return tally


def _close(tally: Tally, *, as_json: bool) -> None:
    """Tell how it went; 1 where a row has no answer."""
    facts = tally.facts()
    console.note(
        f"{facts['answered']} answer(s) about {facts['clips']} clip(s) and {facts['sound_s']:.0f} s of sound in "
        f"{facts['took_s']:.1f} s: {facts['answers_per_s']:.3g} answers/s, {facts['clips_per_s']:.3g} clips/s, "
        f"{facts['times_real_time']:.3g} times real time"
    )
    if as_json:
        console.json_line(facts)
    if tally.failed:
        more = f", {tally.failed - _TOLD} of them not shown" if tally.failed > _TOLD else ""
        console.fail(f"{tally.failed} row(s) have no answer{more}")
        raise SystemExit(1)
