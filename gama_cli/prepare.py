"""``gama prepare``: training data, made from nothing, from recordings, or from published data sets."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

import click

from gama_cli import console
from gama_cli.options import FiniteRange, fold_list

_SECTIONS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Make": {
        "scenes": ("gama_cli.prepare", "scenes", "Write scenes of known sounds."),
        "real": ("gama_cli.prepare", "real", "Write a manifest of real recordings."),
        "questions": ("gama_cli.prepare_questions", "questions", "Have a language model write questions and answers."),
    },
    "Take": {
        "source": ("gama_cli.prepare_sources", "source", "A published data set, from its own folders and tables."),
        "combine": ("gama_cli.prepare_sources", "combine", "Mix manifests, with repeats and a seed."),
    },
    "Ready": {
        "check": ("gama_cli.prepare_check", "check", "Say what is wrong with manifests, and clean them."),
        "audio": ("gama_cli.prepare_audio", "audio", "Convert clips to 16 kHz mono FLAC or wav."),
        "features": ("gama_cli.prepare_features", "features", "Compute the features of all clips once."),
    },
}


class PrepareGroup(click.Group):
    """Its subcommands are imported when they run; the name of a data set is one, too."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in _SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in _SECTIONS.values():
            if cmd_name in section:
                module, attribute, _ = section[cmd_name]
                command: click.Command = getattr(importlib.import_module(module), attribute)
                return command
        from gama_cli.prepare_sources import of_data_set

        return of_data_set(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        given = args[0]
        if not given.startswith("-") and self.get_command(ctx, given) is None:
            from gama.data.sources.preparing import MODULES

            near = difflib.get_close_matches(given, [*self.list_commands(ctx), *MODULES], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; gama prepare source lists the data sets"
            ctx.fail(f"no command or data set {given!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, section in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), help) for name, (_, _, help) in section.items()])


@click.group(cls=PrepareGroup, subcommand_metavar="COMMAND|DATASET …")
def prepare() -> None:
    """Make training data, and make data ready to train on.

    \b
    Examples:
      gama prepare scenes --count 1000 --seed 1 --out scenes
      gama prepare clotho clotho/ --out clotho.json       # gama prepare source lists all data sets
      gama prepare check clotho.json --out clean.json
      gama prepare features clean.json --out features
    """


@click.command()
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


@click.command()
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
