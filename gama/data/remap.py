"""Where a manifest's clips lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gama.audio.source import is_url
from gama.data.manifest import Malformed, usable


@dataclass(frozen=True)
class Remap:
    """Rules that turn the ``audio_id`` of a row into a file.

    Attributes:
        root: relative clips lie here; None: beside the manifest.
        changes: (old, new) beginnings of a path; the first that fits is used.
    """

    root: Path | None = None
    changes: tuple[tuple[str, str], ...] = ()

    def file(self, audio_id: str, manifest: Path) -> Path | None:
        """The clip; None for a row without one."""
        if audio_id == "empty":
            return None
        for old, new in self.changes:
            trimmed = old.rstrip("/")
            if audio_id == trimmed or audio_id.startswith(f"{trimmed}/"):
                audio_id = new.rstrip("/") + audio_id[len(trimmed) :]
                break
        if is_url(audio_id):  # behind a folder it would be refused as a file that is not there
            return Path(audio_id)
        return (self.root or manifest.parent) / audio_id


def clips_of(manifest: Path, remap: Remap, malformed: Malformed | None = None) -> Iterator[Path]:
    """The clip of every row that has one.

    Args:
        manifest: the file.
        remap: where its clips lie.
        malformed: see :func:`gama.data.manifest.usable`.

    Raises:
        ManifestError: naming file, row and field.
    """
    for record, _ in usable(manifest, malformed):
        clip = remap.file(record["audio_id"], manifest)
        if clip is not None:
            yield clip


def absolute(path: Path) -> Path:
    """An absolute path under the names that were given: links keep theirs.

    Only ``..`` asks the disk, because the folder above a link is that of what the link points to. A URL stays one.
    """
    if is_url(str(path)):
        return path
    return path.parent.resolve() / path.name if ".." in path.parts else Path(os.path.abspath(path))


def named_from(clip: Path, folder: Path) -> str:
    """The ``audio_id`` of a clip in a manifest of that folder: relative where the clip lies below it."""
    clip, folder = absolute(clip), absolute(folder)
    return clip.relative_to(folder).as_posix() if clip.is_relative_to(folder) else clip.as_posix()
