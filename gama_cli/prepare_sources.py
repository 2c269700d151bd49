"""``gama prepare DATASET``, ``source`` and ``combine``: published data sets as manifests, and mixtures of manifests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama.atomic import check_output
from gama_cli import console
from gama_cli.left_out import LeftOut

if TYPE_CHECKING:
    from gama.data.mixture import Part

_SPLITS = ("train", "val", "test")

_splits_option = click.option(
    "--split",
    "splits",
    type=click.Choice(_SPLITS),
    multiple=True,
    help="Take this split only; repeat for more. [default: all]",
)
_out_option = click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="MANIFEST",
    help="The manifest to write; JSON Lines where its name ends in .jsonl.",
)


@click.command()
@click.argument("name", required=False, metavar="[DATASET]")
def source(name: str | None) -> None:
    """List the data sets, or say what the folder of one holds.

    \b
    Examples:
      gama prepare source
      gama prepare source fsd50k
    """
    from gama.data.sources.preparing import MODULES, data_set

    if name is None:
        for known in MODULES:
            click.echo(known)
        return
    for line in data_set(name).layout:
        click.echo(line)


def of_data_set(name: str) -> click.Command | None:
    """The command of a data set; None where there is no such data set."""
    from gama.data.sources.preparing import MODULES, data_set

    if name not in MODULES:
        return None
    layout = "\n".join(f"  {line}" for line in data_set(name).layout)
    text = f"Write a manifest of {name}.\n\n\b\nDIR holds:\n{layout}\n\n\b\nExample:\n"
    example = f"  gama prepare {name} {name}/ --out {name}.json"

    @click.command(name, help=text + example)
    @click.argument("root", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
    @_out_option
    @_splits_option
    def command(root: Path, out: Path, splits: Sequence[str]) -> None:
        from gama.data.sources.preparing import prepare

        prepared = prepare(name, root, out, splits=splits)
        if prepared.missing:
            console.warn(f"{prepared.missing} clips of the tables are not there, such as {prepared.first_missing}")
        console.note(f"wrote {prepared.rows} rows about {prepared.clips} clips to {out}")

    return command


def _part(value: str) -> tuple[Path, float]:
    name, mark, times = value.rpartition("*")
    if not mark:
        return Path(value), 1.0
    try:
        repeats = float(times)
    except ValueError:
        return Path(value), 1.0
    if not 0 < repeats <= 1000:
        raise click.BadParameter(f"{value!r}: a row can come more than 0 and up to 1000 times.")
    return Path(name), repeats


def _parts(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[tuple[Path, float]]:
    return [_part(value) for value in values]


@click.command()
@click.argument("parts", nargs=-1, metavar="[MANIFEST[*REPEATS]]...", callback=_parts)
@_out_option
@_splits_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="Of the order.")
@click.option("--mixture", metavar="NAME|FILE", help="Mix as this YAML file says; paper is in the package.")
@click.option("--stage", type=click.IntRange(min=1), metavar="N", help="Stage of the mixture.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path("."),
    metavar="DIR",
    help="Where the mixture's manifests lie: NAME.json or NAME.jsonl. [default: here]",
)
@click.option("--allow-missing", is_flag=True, help="Mix without the sets whose manifests are not there.")
def combine(
    parts: Sequence[tuple[Path, float]],
    out: Path,
    splits: Sequence[str],
    seed: int,
    mixture: str | None,
    stage: int | None,
    folder: Path,
    allow_missing: bool,
) -> None:
    """Mix manifests in one random order.

    MANIFEST*2 takes its rows twice, MANIFEST*0.5 half of them. --split leaves out rows of another split; rows without
    a split are taken. Malformed rows are left out and the exit status is 1.

    \b
    Examples:
      gama prepare combine esc50.json clotho.json*2 audioset.json*0.1 --split train --out train.jsonl
      gama prepare combine --mixture paper --stage 3 --folder manifests --split train --out stage3.jsonl
    """
    from gama.data.mixture import Part, mixture_file
    from gama.data.mixture import combine as combined

    if (mixture is None) == (not parts):
        raise click.UsageError("give manifests or --mixture, and not both.")
    chosen = [Part(path, repeats) for path, repeats in parts]
    if mixture is not None:
        if stage is None:
            raise click.UsageError("a mixture has stages; give --stage with it.")
        check_output(out, [mixture_file(mixture)], make_folder=True)
        chosen = _mixed(mixture, f"stage{stage}", folder, allow_missing)
    left_out = LeftOut()
    taken = combined(chosen, out, seed=seed, splits=splits, malformed=left_out)
    for part, rows in zip(chosen, taken, strict=True):
        console.note(f"{rows} rows of {part.manifest}")
    console.note(f"wrote {sum(taken)} rows to {out}")
    if left_out.close():
        raise SystemExit(1)


def _mixed(mixture: str, stage: str, folder: Path, allow_missing: bool) -> list[Part]:
    from gama.data.mixture import mixture_file, parts_of
    from gama.errors import GamaError

    parts, missing = parts_of(mixture_file(mixture), stage, folder)
    if missing:
        text = f"{len(missing)} sets of {stage} are not in {folder}: {', '.join(missing)}"
        if not allow_missing or not parts:
            raise GamaError(text, "gama prepare NAME writes those it has a reader for; --allow-missing goes without")
        console.warn(text)
    return parts
