"""``gama prepare``: training data, made from nothing or from real recordings."""

from __future__ import annotations

from pathlib import Path

import click

from gama_cli import console
from gama_cli.options import FiniteRange, fold_list


@click.group()
def prepare() -> None:
    """Make training data: sound scenes, real recordings.

    \b
    Examples:
      gama prepare scenes --count 1000 --seed 1 --out scenes
      gama prepare real --audio-root recordings --out real
      gama prepare scenes --count 1000 --real real/manifest.json --folds 1,2,3 --out mixed
    """


@prepare.command()
@click.option("--count", type=click.IntRange(min=1), required=True, metavar="N", help="How many scenes.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="S",
    help="The same seed makes the same scenes.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where manifest.json and audio/ go.",
)
@click.option(
    "--real",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="MANIFEST",
    help="Place recordings of this manifest in the scenes, too.",
)
@click.option(
    "--real-share",
    type=FiniteRange(min=0, max=1),
    default=0.6,
    show_default=True,
    metavar="SHARE",
    help="Share of the sounds that are recordings, with --real.",
)
@click.option("--folds", callback=fold_list, metavar="1,2,3", help="Take recordings of these folds only.")
@click.option(
    "--questions",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="K",
    help="Rows of question and answer for each scene.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, metavar="W", help="Processes that write."
)
def scenes(
    count: int,
    seed: int,
    out: Path,
    real: Path | None,
    real_share: float,
    folds: tuple[int, ...] | None,
    questions: int,
    workers: int,
) -> None:
    """Write scenes of known sounds.

    Each has questions and true answers. The folder DIR receives manifest.json and audio/*.flac.
    """
    from gama.data.scenes.prepare import write_scenes

    if folds is not None and real is None:
        raise click.UsageError("--folds chooses among recordings; give them with --real.")
    with console.progress(count, "writing scenes") as advance:
        manifest = write_scenes(
            out,
            count,
            seed,
            real=real,
            real_share=real_share,
            folds=folds,
            questions=questions,
            workers=workers,
            progress=advance,
        )
    console.note(f"wrote {manifest}")


@prepare.command()
@click.option(
    "--audio-root",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder of recordings.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where manifest.json goes.",
)
def real(audio_root: Path, out: Path) -> None:
    """Write a manifest of real recordings.

    DIR holds the clips that the package lists. The questions and true answers come from
    their labels.
    """
    from gama.data.real import prepare_real

    prepared = prepare_real(audio_root, out)
    if prepared.missing:
        console.warn(f"{len(prepared.missing)} listed clips are not there, such as {prepared.missing[0]}")
    console.note(f"wrote {prepared.used} clips to {prepared.manifest}")
