"""``gama train``: one stage of a recipe, or all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama.interrupts import STOPPED
from gama.processes import first_process_first
from gama_cli import console
from gama_cli.train_plot import plot

if TYPE_CHECKING:
    from gama.training.curriculum import Request, Step
    from gama.training.validation import Sample

_SECONDS_A_LINE = 10.0


@click.group(invoke_without_command=True, subcommand_metavar="[plot …]")
@click.option("--stage", metavar="N|NAME|all", help="Stage 1 to 5, a pre-training by name, or all.  [required]")
@click.option("--recipe", default="gama", show_default=True, metavar="NAME|DIR|FILE", help="Which recipe.")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), metavar="MANIFEST", help="Rows to train on.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@click.option(
    "--from", "parent", type=click.Path(path_type=Path), metavar="DIR|mini|scratch", help="Model to start from."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder.")
@click.pass_context
def train(
    ctx: click.Context,
    stage: str | None,
    recipe: str,
    data: tuple[Path, ...],
    output: Path | None,
    parent: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
) -> None:
    """Train one stage of a recipe, or all of them in order.

    \b
    Examples:
      gama train --recipe mini --stage all
      gama train --recipe mini --stage 3 --set max_steps=100
      gama train --recipe mini --stage 3 --resume
      gama train plot runs/mini/stage3
    """
    if ctx.invoked_subcommand is not None:
        return
    if stage is None:
        raise click.MissingParameter(ctx=ctx, param=next(p for p in ctx.command.params if p.name == "stage"))
    from gama.training.curriculum import Request, checked, plan

    request = Request(recipe, stage, data, output, parent, overrides, resume)
    steps = plan(request)
    if not steps:
        console.note("every stage is finished")
        return
    steps = checked(steps)
    with first_process_first() as first:
        if first:
            _write_scenes(steps)
    for step in steps:
        _train_one(step, request, first=first)


train.add_command(plot)


def _train_one(step: Step, request: Request, *, first: bool) -> None:
    """Run a stage; only the first of several processes speaks."""
    from gama.training.curriculum import train_stage

    if not first:
        train_stage(step, request)
        return
    console.note(f"{step.name}: {step.file.name} -> {step.output}")
    if step.stand_in:
        console.note(f"{step.name}: not all parents have been trained: starting from the packaged {step.stand_in}")
    _say_plan(step)
    try:
        with _watched(step.name) as watch:
            train_stage(step, request, watch=watch, show=_show_sample, note=console.warn)
    except STOPPED:
        console.note(f"{step.name}: stopped; --resume continues from the last checkpoint in {step.output}")
        raise
    console.note(f"{step.name}: done")


def _say_plan(step: Step) -> None:
    from gama.processes import count
    from gama.training.plan_subjects import subject_of
    from gama.training.plan_text import plan_lines
    from gama.training.planning import make_plan

    for line in plan_lines(make_plan(subject_of(step), world=count())):
        console.note(line)


def _show_sample(sample: Sample) -> None:
    console.note(f"step {sample.step}: {sample.question}")
    console.note(f"  true: {sample.expected}")
    console.note(f"  said: {sample.answer}")


def _write_scenes(steps: Sequence[Step]) -> None:
    """Write the scenes that the stages read and that are not there; say which recordings are missing."""
    from gama.training.curriculum import DATA
    from gama.training.scene_sets import write

    if left_out := list(dict.fromkeys(path for step in steps for path in step.left_out)):
        console.warn(
            f"no recordings: training on scenes alone, without {', '.join(map(str, left_out))} "
            f"(supply them with: gama prepare real --audio-root DIR --out {DATA / 'real'})"
        )
    for scene_set in dict.fromkeys(made for step in steps for made in step.makes):
        with console.progress(scene_set.count, f"writing {DATA / scene_set.name}") as advance:
            write(scene_set, DATA, advance)
        console.note(f"wrote {scene_set.count} scenes to {DATA / scene_set.name}")


@contextmanager
def _watched(name: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """Shows a stage's progress on stderr: a bar on a terminal, a plain line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        with _bar(name) as show:
            yield show
        return
    begun = time.monotonic()
    due, first = begun + _SECONDS_A_LINE, 0

    def line(step: int, total: int, numbers: Mapping[str, float]) -> None:
        nonlocal due, first
        first = first or step - 1
        now = time.monotonic()
        if now >= due or step == total:
            due = now + _SECONDS_A_LINE
            left = (now - begun) / (step - first) * (total - step)
            console.note(f"{name}: step {step} of {total}{_loss(numbers)}, {left / 60:.1f} min left")

    yield line


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(name), total=None)

        def show(step: int, total: int, numbers: Mapping[str, float]) -> None:
            progress.update(task, completed=step, total=total, description=escape(f"{name}{_loss(numbers)}"))

        yield show


def _loss(numbers: Mapping[str, float]) -> str:
    return f", loss {numbers['loss']:.3f}" if "loss" in numbers else ""
