"""``gama train``: one stage of a recipe, or all of them."""

from __future__ import annotations

from pathlib import Path

import click

from gama_cli import console


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
    from gama.training.curriculum import Request, plan, train_stage

    request = Request(recipe, stage, data, output, parent, overrides, resume)
    for step in plan(request):
        console.note(f"{step.name}: {step.file.name} -> {step.output}")
        train_stage(step, request)
        console.note(f"{step.name}: done")
