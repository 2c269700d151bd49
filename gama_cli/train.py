"""``gama train``: one stage of a recipe, or all of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from gama_cli import console

_SECONDS_A_LINE = 10.0


@click.command()
@click.option("--stage", required=True, metavar="N|NAME|all", help="Stage 1 to 5, a pre-training by name, or all.")
@click.option("--recipe", default="gama", show_default=True, metavar="NAME|DIR|FILE", help="Which recipe.")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), metavar="MANIFEST", help="Rows to train on.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run.")
@click.option("--from", "parent", type=click.Path(path_type=Path, file_okay=False), help="Model to start from.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder.")
def train(
    stage: str,
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
    """
    from gama.training.curriculum import Request, checked, plan, train_stage

    request = Request(recipe, stage, data, output, parent, overrides, resume)
    steps = plan(request)
    if not steps:
        console.note("every stage is finished")
        return
    for step in checked(steps):
        console.note(f"{step.name}: {step.file.name} -> {step.output}")
        with _watched(step.name) as watch:
            train_stage(step, request, watch=watch)
        console.note(f"{step.name}: done")


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
