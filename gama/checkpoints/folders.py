"""A folder that appears under its name only when it is whole. No torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gama.atomic import check_output_folder, make_folder, move, write_errors
from gama.errors import CheckpointError
from gama.locks import locked


def check_output(out: Path) -> None:
    """Refuse a target that exists and holds something, before any work is done."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out} exists already", "give another folder, or remove it")
    check_output_folder(out)
    make_folder(out.parent)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name when all has gone well, and is removed when it has not."""
    with locked(out, "this folder"):
        check_output(out)  # once more: another command may have written it since
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        try:
            with write_errors(out, folder):
                yield folder
                folder.chmod(0o777 & ~_umask())
                move(folder, out)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
