"""``gama plan``: what training a recipe will take, before it starts."""

from __future__ import annotations

import re
from pathlib import Path

import click

from gama_cli import console
from gama_cli.options import json_option

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB|G|MiB|MB|M)?\s*", re.IGNORECASE)
_UNITS = {"": 2**30, "g": 2**30, "gb": 2**30, "gib": 2**30, "m": 2**20, "mb": 2**20, "mib": 2**20}


def _memory(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of ``--gpu``: bytes; GB as cards are sold, which is GiB."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size <= 0:
        raise click.BadParameter(f"{value!r} is no size of a memory such as 24GB.", ctx, param)
    return size


@click.command()
@click.argument("recipe", default="gama")
@click.option("--stage", default="all", show_default=True, metavar="N|NAME|all", help="Which stage.")
@click.option("--gpu", callback=_memory, metavar="24GB", help="Fit a GPU of this memory. [default: this machine]")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), metavar="MANIFEST", help="Rows to train on.")
@click.option(
    "--from", "parent", type=click.Path(path_type=Path), metavar="DIR|mini|scratch", help="Model to start from."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@json_option
def plan(
    recipe: str,
    stage: str,
    gpu: int | None,
    data: tuple[Path, ...],
    parent: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what training RECIPE (a name, folder or file) will take: nothing is trained.

    Parameters by part, memory by what it holds, the largest micro-batch that fits, steps, tokens and hours. Sizes come
    from the configuration, so that no weights are needed; hours from a few seconds of measuring this machine.

    \b
    Examples:
      gama plan mini --stage 3
      gama plan gama --stage 2 --gpu 24GB --data rows.json
      gama plan gama --stage 2 --gpu 24GB --set quant=4bit --json
    """
    from gama.training.curriculum import Request, steps_of

    steps = steps_of(Request(recipe, stage, data, None, parent, overrides))
    from gama.training.plan_subjects import subject_of
    from gama.training.plan_text import plan_lines, plan_values
    from gama.training.planning import make_plan

    for number, step in enumerate(steps):
        made = make_plan(subject_of(step), gpu=gpu)
        if as_json:
            console.json_line(plan_values(made))
        else:
            click.echo("\n".join(([""] if number else []) + plan_lines(made)))
