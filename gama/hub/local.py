"""Where a fetched model lies on this disk; nothing is fetched."""

from __future__ import annotations

from pathlib import Path

from gama.errors import CheckpointError, GamaError
from gama.hub import hugging_face
from gama.hub.disk import models_folder
from gama.hub.table import HubSource, entry_named, load_table


def fetched_folder(name: str) -> Path | None:
    """The folder of a model that ``gama pull`` has fetched; None for a name that is in no table and on no disk.

    Args:
        name: of the table of models, or ``owner/name[@revision]``.

    Raises:
        CheckpointError: for a model of the table that is not on this disk, or one that has to be converted first.
    """
    table = load_table()
    folder = models_folder() / name
    if name in table or _is_repository(name):
        origin = entry_named(name, table).origin
        if isinstance(origin, HubSource):
            folder = _in_hub_cache(origin) or folder
    if not folder.is_dir():
        if name in table:
            raise CheckpointError(f"the model {name!r} is not on this disk", f"gama pull {name}")
        return None
    if not (folder / "config.json").is_file():
        following = [step.format(path=folder) for step in (table[name].next if name in table else ())]
        raise CheckpointError(
            f"{name!r} holds the files of its authors ({folder}), which have to be converted first",
            following[-1] if following else "gama convert",
        )
    return folder


def _is_repository(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def _in_hub_cache(source: HubSource) -> Path | None:
    try:
        return hugging_face.snapshot(source)
    except GamaError:  # not there, or not whole
        return None


__all__ = ["fetched_folder"]
