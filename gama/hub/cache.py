"""What lies on this disk: the packaged model, gama's cache, the hub's cache; and taking it away again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from gama.checkpoints import bundled
from gama.errors import GamaError, MissingPackageError
from gama.hub import hugging_face
from gama.hub.disk import models_folder
from gama.hub.table import Entry, HubSource
from gama.locks import locked


@dataclass(frozen=True)
class Kept:
    """A model on this disk.

    Attributes:
        name: as ``gama pull`` and ``gama models rm`` take it.
        where: ``package``, ``gama`` (gama's cache) or ``hub`` (the cache that transformers reads, too).
        path: its folder.
        size: bytes on the disk.
        whole: False where a fetch was cut short.
        files: what is removed with it; empty for a whole folder.
    """

    name: str
    where: Literal["package", "gama", "hub"]
    path: Path
    size: int
    whole: bool = True
    files: tuple[Path, ...] = field(default=(), repr=False)


def kept(table: Mapping[str, Entry]) -> list[Kept]:
    """Every model on this disk, the packaged ones first."""
    rows = [
        Kept(name, "package", bundled.model_folder(name), size_of(bundled.model_folder(name)))
        for name in bundled.names()
    ]
    return rows + _in_home() + _in_hub_cache(table)


def kept_named(name: str, table: Mapping[str, Entry]) -> list[Kept]:
    """What is kept under a name.

    Raises:
        GamaError: for a name nothing is kept under, or a packaged model.
    """
    found = [row for row in kept(table) if row.name == name]
    if not found:
        raise GamaError(f"nothing called {name!r} lies on this disk", "see: gama models list")
    if any(row.where == "package" for row in found):
        raise GamaError(f"{name!r} is part of the package", "pip uninstall gama-audio removes it")
    return found


def remove(row: Kept) -> None:
    """Take a model off this disk.

    Raises:
        LockedError: while another process fetches it.
    """
    with locked(row.path.with_name(row.path.name.removesuffix(".part")), "this model"):
        _remove(row)


def _remove(row: Kept) -> None:
    if row.where == "gama":
        shutil.rmtree(row.path)
        return
    repository = row.path
    doomed = set(row.files)
    inside = repository.resolve()
    contents = {content for file in doomed if (content := file.resolve()).is_relative_to(inside)}
    others = {file.resolve() for file in _pointers(repository) if file not in doomed}
    for file in doomed | (contents - others):
        file.unlink(missing_ok=True)
    if not any(_pointers(repository)) and not any(_parts(repository)):
        shutil.rmtree(repository)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, each counted once."""
    sizes = {(s.st_dev, s.st_ino): s.st_size for p in folder.rglob("*") if p.is_file() and (s := p.stat())}
    return sum(sizes.values())


def _in_home() -> list[Kept]:
    folder = models_folder()
    if not folder.is_dir():
        return []
    rows = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
        rows.append(Kept(path.name.removesuffix(".part"), "gama", path, size_of(path), path.suffix != ".part"))
    return rows


def _in_hub_cache(table: Mapping[str, Entry]) -> list[Kept]:
    """Repositories of models, and those of named models; a repository that holds several names gives several rows."""
    try:
        folder = hugging_face.cache_folder()
    except MissingPackageError:
        return []
    rows: list[Kept] = []
    for repository in sorted(folder.glob("models--*")) + sorted(folder.glob("spaces--*")):
        repo = "/".join(repository.name.split("--")[1:])
        entries = [e for e in table.values() if isinstance(e.origin, HubSource) and e.origin.repo == repo]
        if repository.is_dir() and (entries or repository.name.startswith("models--")):
            rows += _rows_of(repository, repo, entries)
    return rows


def _rows_of(repository: Path, repo: str, entries: Iterable[Entry]) -> list[Kept]:
    rows = []
    left = list(_pointers(repository))
    for entry in entries:
        patterns = entry.origin.files if isinstance(entry.origin, HubSource) else ()
        own = [file for file in left if any(fnmatch(_inside(file, repository), p) for p in patterns)]
        left = [file for file in left if file not in own]
        if own:
            rows.append(Kept(entry.name, "hub", repository, _size(own), files=tuple(own)))
    rest = [*left, *_parts(repository)]
    if rest:
        rows.append(Kept(repo, "hub", repository, _size(rest), not any(_parts(repository)), tuple(rest)))
    return rows


def _pointers(repository: Path) -> list[Path]:
    """The files of every snapshot (links to the contents, or the contents themselves)."""
    return sorted(p for p in (repository / "snapshots").rglob("*") if p.is_symlink() or p.is_file())


def _parts(repository: Path) -> list[Path]:
    """What fetches that were cut short have left, ours and huggingface_hub's."""
    blobs = repository / "blobs"
    return sorted(p for pattern in ("*.part", "*.part.json", "*.incomplete") for p in blobs.glob(pattern))


def _inside(file: Path, repository: Path) -> str:
    return "/".join(file.relative_to(repository / "snapshots").parts[1:])


def _size(files: Iterable[Path]) -> int:
    contents: dict[Any, int] = {file.resolve(): file.stat().st_size for file in files if file.exists()}
    return sum(contents.values())
