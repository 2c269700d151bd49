"""``gama ask --manifest``: answers as JSON lines, to a file that a second run goes on with, or to stdout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gama_cli import console
from gama_cli.ask_clips import cache_of, how_of, loading_of

if TYPE_CHECKING:
    from gama.inference.fleet import Tally, Work

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
    from gama.data.remap import Remap
    from gama.inference.fleet import Run, Tally, Work
    from gama.inference.hearing import asking

    out: Path | None = options["out"]
    if out is None and (options["devices"] or options["resume"]):
        raise click.UsageError("--devices and --resume need --out FILE")
    work = Work(
        manifest=manifest,
        questions=questions,
        out=out or Path(),
        how=asking(**how_of(options)),
        batch_size=options["batch_size"],
        loading=loading_of(options),
        cache=cache_of(options),
        remap=Remap(options["audio_root"], options["changes"]),
    )
    if out is None:
        tally = _to_stdout(work)
    else:
        run = Run(work, resume=options["resume"])
        if run.kept:
            console.note(f"{run.kept} of {run.kept + run.left} answers are there already")
        tally = Tally()
        try:
            with console.progress(run.left, "asking") as advance:
                for done in run.done(options["devices"]):
                    tally.add(done)
                    advance(1)
                    if done.error and tally.failed <= _TOLD:
                        console.fail(done.error)
        except KeyboardInterrupt:
            console.note(f"{run.kept + tally.answered} of {run.kept + run.left} answers are kept; --resume goes on")
            raise
    _close(tally, as_json=as_json and out is not None)


def _to_stdout(work: Work) -> Tally:
    from gama.inference.batches import replies
    from gama.inference.fleet import Tally, told

    questions = list(work.asked())
    tally = Tally()
    found = replies(work.open, (q.request for q in questions), work.how, batch_size=work.batch_size)
    for question, reply in zip(questions, found, strict=True):
        console.json_line(question.line(reply))
        tally.add(told(question, reply))
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
