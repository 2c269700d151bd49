"""``gama prepare features``: the features of all clips, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gama_cli import console
from gama_cli.left_out import LeftOut
from gama_cli.options import manifests_argument, remap_options, workers_option

_SHOWN = 5  # clips that cannot be used, named one by one


@click.command()
@manifests_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the shards.",
)
@remap_options
@workers_option
@click.option("--shard-size", type=click.IntRange(min=1), default=256, show_default=True, metavar="N", help="Clips.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="ray computes on a cluster whose machines share the folders.",
)
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster; auto is the one of this machine.")
@click.option("--verify", is_flag=True, help="Compare every clip in the folder with its checksum.")
def features(
    manifests: Sequence[Path],
    out: Path,
    audio_root: Path | None,
    changes: Sequence[tuple[str, str]],
    workers: int,
    shard_size: int,
    engine: Any,
    address: str | None,
    verify: bool,
) -> None:
    """Decode, resample and filter every clip of manifests once.

    The shards are found by the content of the clips: files may move, and clips that two manifests share are computed
    once. Run again after a stop, or with more manifests: what is there stays. The exit status is 1 where a clip or row
    cannot be used.

    \b
    Examples:
      gama prepare features train.json test.json --out features --workers 8
      gama prepare features train.json --out /shared/features --engine ray --address head:6379
    """
    if address is not None and engine != "ray":
        raise click.UsageError("--address is of a Ray cluster; give --engine ray with it.")
    from gama.data.remap import Remap, clips_of
    from gama.data.shards import build, damaged

    remap, left_out = Remap(audio_root, tuple(changes)), LeftOut()
    clips = list(dict.fromkeys(clip for manifest in manifests for clip in clips_of(manifest, remap, left_out)))
    with console.progress(len(clips), "computing features") as advance:
        built = build(clips, out, workers=workers, size=shard_size, engine=engine, address=address, progress=advance)
    for _, message in built.failed[:_SHOWN]:
        console.warn(message)
    if len(built.failed) > _SHOWN:
        console.warn(f"{len(built.failed) - _SHOWN} more clips cannot be used; gama prepare check names them all")
    console.note(f"{built.clips - len(built.failed)} of {built.clips} clips in {out}, {built.computed} computed now")
    bad = damaged(out) if verify else []
    if bad:
        console.warn(f"{len(bad)} clips differ from their checksum; they are computed again whenever they are read")
    if left_out.close() or built.failed or bad:
        raise SystemExit(1)
