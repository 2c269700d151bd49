"""``gama train plot``: the curves of runs."""

from __future__ import annotations

from pathlib import Path

import click

from gama.atomic import check_output
from gama_cli import console


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    default="curves.png",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The picture: .png, .svg or .pdf.",
)
@click.option("--overlay", is_flag=True, help="Draw every run from step 0, to compare them.")
def plot(runs: tuple[Path, ...], out: Path, overlay: bool) -> None:
    """Draw loss and learning rate of every RUN (an output folder) into one picture.

    Several runs stand one after the other, as the stages of a recipe do. Needs matplotlib: gama-audio[plot].

    \b
    Examples:
      gama train plot runs/mini/stage5
      gama train plot runs/mini/stage* -o stages.png
      gama train plot runs/one runs/other --overlay -o compared.svg
    """
    from gama.training.plotting import draw, read_curve

    check_output(out, [*runs, *(run / "metrics.jsonl" for run in runs)], make_folder=True)
    draw([read_curve(run) for run in runs], out, overlay=overlay)
    console.note(f"wrote {out}")
