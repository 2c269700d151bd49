"""``gama prepare audio``: clips as 16 kHz mono files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gama_cli import console
from gama_cli.left_out import LeftOut
from gama_cli.options import FiniteRange, remap_options, workers_option

_SHOWN = 5  # clips that could not be converted, named one by one


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="DIR|MANIFEST...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where audio/ and the manifests go.",
)
@click.option(
    "--format", "kind", type=click.Choice(["flac", "wav"]), default="flac", show_default=True, help="Of the new files."
)
@click.option(
    "--max-seconds",
    type=FiniteRange(min=0.025),
    metavar="SECONDS",
    help="Cut longer clips. [default: keep all of them]",
)
@remap_options
@workers_option
def audio(
    sources: Sequence[Path],
    out: Path,
    kind: Any,
    max_seconds: float | None,
    audio_root: Path | None,
    changes: Sequence[tuple[str, str]],
    workers: int,
) -> None:
    """Convert folders or manifests to 16 kHz mono.

    The originals are only read. A manifest is written again, with the new clips; malformed rows and rows whose clip
    cannot be read are left out and the exit status is 1. Samples above full scale, which 16 bits cannot hold, are not
    cut off: the whole clip is scaled down, with a warning. Run again after a stop: what is done stays.

    \b
    Examples:
      gama prepare audio recordings/ --out recordings-16k
      gama prepare audio train.json test.json --map /cluster=/data --out data-16k --workers 8
    """
    from gama.data.conversion import convert
    from gama.data.remap import Remap

    with console.progress(None, "converting clips") as advance:
        result = convert(
            sources,
            out,
            kind=kind,
            remap=Remap(audio_root, tuple(changes)),
            max_seconds=max_seconds,
            workers=workers,
            progress=advance,
        )
    left_out = LeftOut()
    for error in result.malformed:
        left_out(error)
    _tell_scaled(result.scaled)
    for _, message in result.failed[:_SHOWN]:
        console.warn(message)
    if len(result.failed) > _SHOWN:
        console.warn(f"{len(result.failed) - _SHOWN} more clips cannot be read; gama prepare check names them all")
    console.note(f"{result.done} clips in {out / 'audio'}, {result.fresh} of them converted now")
    for manifest, kept, lost in result.manifests:
        console.note(f"wrote {kept} rows to {manifest}" + (f", {lost} were left out" if lost else ""))
    if left_out.close() or result.failed:
        raise SystemExit(1)


def _tell_scaled(scaled: Sequence[tuple[Path, float]]) -> None:
    for clip, peak in scaled[:_SHOWN]:
        console.warn(f"{clip}: its samples reach {peak:.4g} times full scale; scaled down by {_decibels(peak)}")
    if scaled:
        loudest = max(peak for _, peak in scaled)
        console.warn(
            f"{len(scaled)} clip(s) lay above full scale and were scaled down, the loudest by {_decibels(loudest)}"
        )


def _decibels(peak: float) -> str:
    return f"{20 * math.log10(peak):.2f} dB"
