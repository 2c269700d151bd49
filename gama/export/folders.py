"""New folders that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gama.atomic import check_output_folder, make_folder, move, write_errors
from gama.errors import CheckpointError
from gama.locks import locked


def free_name(folder: Path) -> None:
    """Refuse a name that is taken.

    Raises:
        CheckpointError: where something lies there.
        OutputError: where no folder can be made.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder}: exists", "give another folder, or delete this one")
    check_output_folder(folder)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name at the end; after an error nothing is left."""
    free_name(folder)
    make_folder(folder.parent)
    with locked(folder, "this folder"):
        free_name(folder)  # once more: another command may have written it since
        work = folder.with_name(f"{folder.name}.part")
        if work.is_dir():
            shutil.rmtree(work)  # of a run that was killed
        make_folder(work)
        try:
            with write_errors(folder, work):
                yield work
                if folder.is_dir():
                    folder.rmdir()
                move(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def readable(folder: Path) -> None:
    """Let everybody read the files of a folder: safetensors writes for the owner alone."""
    for file in folder.iterdir():
        file.chmod(0o644)
