"""Files of a run that are there whole or not at all. No torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gama.atomic import move


def move_in(partial: Path, output: Path, *, last: str) -> None:
    """Move the files of a finished folder into ``output``; ``last`` tells that all of them are there."""
    (output / last).unlink(missing_ok=True)  # from here on nobody takes a mixture of two saves for a model
    for file in sorted(partial.iterdir(), key=lambda f: f.name == last):
        file.chmod(0o644)  # safetensors writes for the owner alone
        move(file, output / file.name)
    partial.rmdir()


def discard(folder: Path) -> None:
    """Take a folder away; from the first moment on its name is free."""
    gone = folder.with_name(f".{folder.name.lstrip('.')}.gone.tmp")
    shutil.rmtree(gone, ignore_errors=True)
    move(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def to_disk(folder: Path) -> None:
    """Wait until everything below a folder is on the disk, and not in memory alone."""
    paths = [*folder.rglob("*"), folder]
    for path in paths if os.name == "posix" else [p for p in paths if p.is_file()]:  # elsewhere folders do not open
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
