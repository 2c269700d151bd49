"""``gama prepare check``: what is wrong with manifests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama_cli import console
from gama_cli.options import FiniteRange, json_option, manifests_argument, remap_options, workers_option

if TYPE_CHECKING:
    from gama.data.check import Report


def _kinds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    from gama.data.check import KINDS

    if value is None:
        return None
    kinds = tuple(part.strip() for part in value.split(",") if part.strip() and part != "none")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(KINDS)}.", ctx, param)
    return kinds


@click.command()
@manifests_argument
@click.option(
    "--held-out",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="MANIFEST",
    help="What is not trained on: say which recordings are on both sides. Repeat for more.",
)
@remap_options
@click.option(
    "--min-seconds", type=FiniteRange(min=0), default=0.025, show_default=True, metavar="SECONDS", help="Shortest clip."
)
@click.option(
    "--max-seconds", type=FiniteRange(min=0), default=10.24, show_default=True, metavar="SECONDS", help="Longest clip."
)
@click.option(
    "--rate", type=click.IntRange(min=1), default=16000, show_default=True, metavar="HZ", help="Expected rate."
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=0),
    default=108,
    show_default=True,
    metavar="N",
    help="Longest row; 0: do not measure.",
)
@click.option(
    "--tokenizer",
    metavar="DIR|FILE",
    help="Whose tokens are counted: tokenizer.json of the language model. [default: the model in the package]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the rows that are kept here, the others and why into FILE's .dropped.jsonl.",
)
@click.option(
    "--drop",
    callback=_kinds,
    metavar="KINDS",
    help='What to leave out, such as missing,silent; "none" keeps all. [default: those marked in the table]',
)
@workers_option
@json_option
def check(
    manifests: Sequence[Path],
    held_out: Sequence[Path],
    audio_root: Path | None,
    changes: Sequence[tuple[str, str]],
    min_seconds: float,
    max_seconds: float,
    rate: int,
    max_tokens: int,
    tokenizer: str | None,
    out: Path | None,
    drop: tuple[str, ...] | None,
    workers: int,
    as_json: bool,
) -> None:
    """Say what is wrong with the rows and clips of manifests.

    Every clip is decoded once. Without --out the exit status is 1 where a row would be dropped.

    \b
    Examples:
      gama prepare check train.json
      gama prepare check train.json --held-out test.json --map /cluster/audio=/data/audio
      gama prepare check *.json --tokenizer Llama-2-7b-chat-hf --out clean.json --json
    """
    from gama.data.check import DROPPED, Checker, Limits, dropped_beside
    from gama.data.remap import Remap

    drop = DROPPED if drop is None else drop
    with console.progress(None, "decoding clips") as advance:
        report = Checker(
            manifests,
            held_out=held_out,
            remap=Remap(audio_root, tuple(changes)),
            limits=Limits(min_seconds, max_seconds, rate, max_tokens),
            count_tokens=_counter(tokenizer) if max_tokens else None,
            drop=drop,
            workers=workers,
            progress=advance,
        ).run(out)
    if as_json:
        console.json_line(report.to_json())
    else:
        _show(report, drop)
    if out is not None:
        console.note(f"wrote {report.kept} rows to {out}, {report.rows - report.kept} to {dropped_beside(out)}")
    elif report.kept < report.rows:
        raise SystemExit(1)


def _counter(name: str | None) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    from gama.checkpoints.bundled import model_folder
    from gama.errors import GamaError

    file = model_folder() if name is None else Path(name)
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise GamaError(f"{file}: no such file", "give the tokenizer.json of the language model, or its folder")
    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _show(report: Report, drop: Sequence[str]) -> None:
    from gama.data.check import KINDS

    rows = [
        (kind, report.counts[kind], "yes" if kind in drop else "", report.examples[kind][0].detail)
        for kind in KINDS
        if report.counts[kind]
    ]
    if rows:
        click.echo(console.table(("found", "rows", "dropped", "the first"), rows))
    click.echo(f"{report.rows} rows, {report.clips} clips; {report.kept} rows kept")
    if report.constant:
        click.echo(f"the original would have trained on a constant spectrogram in {report.constant} rows")
