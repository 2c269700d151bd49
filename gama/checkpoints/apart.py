"""A model kept apart from its frozen language model: its own weights beside a reference to the folder of the rest.

What such a folder holds::

    audio_tower.safetensors   audio tower and prefix positions, under their names in the whole model
    adapter_*                 LoRA as ``gama convert --keep-adapter`` writes it, where the model has some
    base.json                 the folder whose language model it is, and the hash of its weights
    config.json, processor    of the whole model

No torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gama.checkpoints.json_files import read_table
from gama.errors import CheckpointError

BASE = "base.json"
TOWER = "audio_tower.safetensors"
ADAPTER = "adapter_model.safetensors"
_WEIGHTS = "model*.safetensors"
_LONGEST = 4096  # letters of a path


@dataclass(frozen=True)
class Base:
    """A folder whose language model others share.

    Attributes:
        folder: where it lies.
        sha256: of its weight files.
    """

    folder: Path
    sha256: str


def is_apart(folder: Path) -> bool:
    """Whether the language model of a folder lies elsewhere."""
    return (folder / BASE).is_file()


def weights_sha256(folder: Path) -> str:
    """The hash of a model's own weights; of one kept apart, with the hash of its base."""
    if not is_apart(folder):
        return _sha256(sorted(folder.glob(_WEIGHTS)))
    own = _sha256([file for name in (ADAPTER, TOWER) if (file := folder / name).is_file()])
    return hashlib.sha256((own + _record(folder)["sha256"]).encode()).hexdigest()


def base_of(folder: Path) -> Base:
    """The base of a model; a whole model is its own.

    A base whose files have the sizes and times they had is not read again.

    Raises:
        CheckpointError: where the base is not there, or has other weights than it had.
    """
    if not is_apart(folder):
        return Base(folder, weights_sha256(folder))
    record = _record(folder)
    found = _found(folder, record)
    if _facts(found) != record["files"] and (now := weights_sha256(found)) != record["sha256"]:
        raise CheckpointError(
            f"{folder}: its language model is that of {found}, whose weights have changed since: "
            f"sha256 {record['sha256'][:12]}… was expected, {now[:12]}… found",
            f"put the old weights back, or name their folder in {folder / BASE}",
        )
    return Base(found, record["sha256"])


def base_record(base: Base, folder: Path) -> str:
    """The text of ``base.json`` for a model in ``folder``."""
    record = {
        "folder": str(base.folder.resolve()),
        "relative": os.path.relpath(base.folder.resolve(), folder.resolve()),
        "sha256": base.sha256,
        "files": _facts(base.folder),
    }
    return json.dumps(record, indent=2) + "\n"


@contextmanager
def joined(folder: Path, *, adapter: bool = True) -> Iterator[Path]:
    """A folder that transformers reads as a whole model; of one kept apart, with the audio tower of its base.

    Args:
        folder: of the model.
        adapter: whether its LoRA is there too, which transformers would apply by itself.

    Raises:
        CheckpointError: see :func:`base_of`.
    """
    if not is_apart(folder) and (adapter or not (folder / "adapter_config.json").is_file()):
        yield folder
        return
    files = {file.name: file for file in folder.iterdir() if adapter or not file.name.startswith("adapter_")}
    if is_apart(folder):
        base = base_of(folder).folder
        files = {k: v for k, v in files.items() if k not in (TOWER, BASE)}
        files |= {file.name: file for file in base.glob("model*.safetensors*")}
    with tempfile.TemporaryDirectory(prefix="gama-joined-") as made:
        for name, file in files.items():
            (Path(made) / name).symlink_to(file.resolve())
        yield Path(made)


def _record(folder: Path) -> dict[str, Any]:
    file = folder / BASE
    record = {"relative": "", "files": {}} | read_table(file)
    texts = [record.get(name) for name in ("folder", "sha256", "relative")]
    if not all(isinstance(text, str) and "\0" not in text and len(text) < _LONGEST for text in texts):
        raise CheckpointError(f"{file}: names no base: 'folder' and 'sha256' are expected")
    return record


def _found(folder: Path, record: dict[str, Any]) -> Path:
    near = (folder / BASE).resolve().parent / record["relative"]
    for place in (Path(record["folder"]), near):
        if any(place.glob(_WEIGHTS)):
            return place
    raise CheckpointError(
        f"{folder}: its language model is that of {record['folder']}, where no weights are",
        f"put it back, or name its folder in {folder / BASE}",
    )


def lost_base(folder: Path) -> str | None:
    """The folder of a model's language model where it is not there any more."""
    if not is_apart(folder):
        return None
    record = _record(folder)
    try:
        _found(folder, record)
    except CheckpointError:
        return str(record["folder"])
    return None


def _facts(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of every weight file."""
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(folder.glob(_WEIGHTS))}


def _sha256(files: list[Path]) -> str:
    return _hashed(tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@lru_cache(maxsize=64)
def _hashed(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        with open(name, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
