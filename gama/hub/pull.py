"""Fetch a named model: room is checked first, then every file against its hash."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from gama.atomic import move, write_errors, write_text
from gama.errors import CheckpointError, GamaError
from gama.hub import hugging_face, names
from gama.hub.disk import check_space, models_folder, sole_writer
from gama.hub.table import Entry, HubSource, UrlFile
from gama.hub.transfer import (
    Advance,
    Digest,
    Refused,
    Remote,
    check_content,
    digest_of,
    fetch,
    missing_bytes,
    notes_of,
    part_of,
)

RECORD = "gama-pull.json"

Progress = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Takes a file's name and size, gives a context that yields a function to call with the bytes that have arrived."""


@dataclass(frozen=True)
class PulledFile:
    """A file that was fetched.

    Attributes:
        path: inside the model's folder.
        size: bytes.
        sha256: of what lies on this disk; None for small files of a hub, which are checked by git's hash.
        checked: whether it was compared with a hash that somebody had told.
    """

    path: str
    size: int
    sha256: str | None
    checked: bool


@dataclass(frozen=True)
class Pulled:
    """A model on this disk."""

    name: str
    path: Path
    files: tuple[PulledFile, ...]


@dataclass(frozen=True)
class _Job:
    remote: Remote
    target: Path
    path: str


def _silent(name: str, size: int | None) -> AbstractContextManager[Advance]:
    return nullcontext(lambda _: None)


def pull(entry: Entry, *, to: Path | None = None, progress: Progress = _silent) -> Pulled:
    """Fetch a model, or find it whole on this disk.

    Args:
        entry: what to fetch.
        to: the folder to put it into; by default the hub's cache, or gama's cache for plain addresses.
        progress: shows what arrives.

    Raises:
        GamaError: for too little room, a licence that has to be accepted, an address that may not be asked.
        CheckpointError: for files whose size or hash is not what was expected.
    """
    if isinstance(entry.origin, str):
        raise GamaError(
            f"{entry.name}: lies where only a browser can download it",
            f"open {entry.origin}, then give the file to gama",
        )
    if isinstance(entry.origin, HubSource):
        return _from_hub(entry, entry.origin, to, progress)
    jobs = [(file.name, _remote(file)) for file in entry.origin]
    return _into_folder(entry, to or models_folder() / entry.name, jobs, progress)


def unchecked(pulled: Pulled) -> list[str]:
    """The files of which nobody has told the hash."""
    return [file.path for file in pulled.files if not file.checked]


def _remote(file: UrlFile) -> Remote:
    return Remote(file.url, file.size, Digest("sha256", file.sha256) if file.sha256 else None)


def _from_hub(entry: Entry, source: HubSource, to: Path | None, progress: Progress) -> Pulled:
    if hugging_face.offline():
        return _offline(entry, source, to)
    try:
        found = hugging_face.listing(entry, source)
    except hugging_face.Unreachable:
        if to is None and _in_cache(source):
            return _offline(entry, source, to)
        raise
    if to is not None:
        return _into_folder(entry, to, [(file.path, file.remote) for file in found.files], progress, found.commit)
    jobs = [_Job(file.remote, hugging_face.blob(source, file), file.path) for file in found.files]
    is_whole = all(job.target.exists() for job in jobs)  # a cache that is only read needs no lock
    with nullcontext() if is_whole else sole_writer(hugging_face.repository(source)):
        for job in jobs:
            if job.target.exists() and job.remote.digest is not None:
                _check_kept(job.target, job.remote.digest, job.path)
        _fetch_all(entry, jobs, hugging_face.cache_folder(), progress)
        folder = hugging_face.lay_out(source, found)
    files = (_facts(folder / file.path, file.path, file.remote.digest) for file in found.files)
    return Pulled(entry.name, folder, tuple(files))


def _in_cache(source: HubSource) -> bool:
    try:
        hugging_face.snapshot(source)
    except GamaError:
        return False
    return True


def _offline(entry: Entry, source: HubSource, to: Path | None) -> Pulled:
    """The model as the hub's cache holds it; checked where the table or the cache tells a hash."""
    if to is not None:
        raise GamaError(f"{entry.name}: --to fetches, and HF_HUB_OFFLINE forbids it", "leave --to out to use the cache")
    folder = hugging_face.snapshot(source)
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not any(fnmatch(name, pattern) for pattern in source.files):
            continue
        digest = _cached_digest(path, source.sha256.get(name))
        if digest is not None:
            _check_kept(path, digest, name)
        files.append(_facts(path, name, digest))
    return Pulled(entry.name, folder, tuple(files))


def _cached_digest(path: Path, known: str | None) -> Digest | None:
    """What a file of the cache has to be: the cache names content by its hash."""
    if known:
        return Digest("sha256", known)
    key = path.resolve().name if path.is_symlink() else ""
    return Digest("sha256", key) if len(key) == 64 else Digest("git", key) if len(key) == 40 else None


def _check_kept(file: Path, digest: Digest, name: str) -> None:
    """Check a file of the cache; a bad one is taken out, so that the next run fetches it. What the cache merely links
    to is left alone.
    """
    try:
        check_content(file, digest, name)
    except CheckpointError:
        content = file.resolve()
        if content.is_relative_to(hugging_face.cache_folder().resolve()):
            content.unlink()
        raise


def _into_folder(
    entry: Entry, folder: Path, files: Sequence[tuple[str, Remote]], progress: Progress, commit: str | None = None
) -> Pulled:
    """Fetch into a folder beside the wanted one, which then takes its name."""
    names.check_apart([RECORD, *(path for path, _ in files)], entry.name)
    if not _is_vacant(folder):
        return _already(entry, folder, files)
    with sole_writer(folder):
        if _is_vacant(folder):
            return _fetched(entry, folder, files, progress, commit)
    return _already(entry, folder, files)  # by the process that was waited for


def _is_vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _fetched(
    entry: Entry, folder: Path, files: Sequence[tuple[str, Remote]], progress: Progress, commit: str | None
) -> Pulled:
    work = part_of(folder)
    jobs = [_Job(remote, work / path, path) for path, remote in files]
    was_empty = work.is_dir() and not any(work.iterdir())
    _check_own(work, jobs)
    try:
        _fetch_all(entry, jobs, work, progress)
        done = tuple(_facts(job.target, job.path, job.remote.digest, hashed=True) for job in jobs)
        _record(entry, work, done, commit)
    except BaseException:
        if not was_empty:
            _remove_empty(work)
        raise
    with write_errors(folder):
        if folder.is_dir():
            folder.rmdir()  # empty; Windows does not replace it
    move(work, folder)
    return Pulled(entry.name, folder, done)


def _check_own(work: Path, jobs: Sequence[_Job]) -> None:
    """What lies in the unfinished folder is what an earlier run has left of these files, and nothing else."""
    own = {work / RECORD}
    for job in jobs:
        own |= {job.target, part_of(job.target), notes_of(part_of(job.target))}
    for file in work.rglob("*"):
        if file.is_symlink() or not (file.is_dir() or file in own):
            raise GamaError(f"{file}: lies where the unfinished folder would be", "move it, or give another --to DIR")


def _remove_empty(folder: Path) -> None:
    """Take away a folder and those in it, as far as they hold no files."""
    for path in sorted((folder, *folder.rglob("*")), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def _already(entry: Entry, folder: Path, files: Sequence[tuple[str, Remote]]) -> Pulled:
    """What lies in the folder, if it is this model."""
    kept = []
    for path, remote in files:
        file = folder / path
        if not file.is_file():
            raise GamaError(
                f"{folder}: exists, and is not {entry.name}: it has no {path}", "give another folder: --to DIR"
            )
        if remote.size is not None and file.stat().st_size != remote.size:
            raise CheckpointError(
                f"{file}: has {file.stat().st_size} bytes, {remote.size} were expected",
                f"delete {folder} and pull again",
            )
        if remote.digest is not None:
            check_content(file, remote.digest, str(file))
        kept.append(_facts(file, path, remote.digest))
    return Pulled(entry.name, folder, tuple(kept))


def _fetch_all(entry: Entry, jobs: Sequence[_Job], folder: Path, progress: Progress) -> None:
    check_space(sum(missing_bytes(job.remote, job.target) for job in jobs), folder)
    for job in jobs:
        if job.target.exists():
            continue
        with progress(job.path, job.remote.size) as advance:
            try:
                fetch(job.remote, job.target, advance=advance)
            except Refused as error:
                if isinstance(entry.origin, HubSource) and error.status in (401, 403):
                    raise hugging_face.gated(entry) from error
                raise


def _facts(file: Path, path: str, digest: Digest | None, *, hashed: bool = False) -> PulledFile:
    sha256 = digest.value if digest is not None and digest.kind == "sha256" else None
    if sha256 is None and (hashed or digest is None):
        sha256 = digest_of(file, "sha256")
    return PulledFile(path, file.stat().st_size, sha256, digest is not None)


def _record(entry: Entry, folder: Path, files: tuple[PulledFile, ...], commit: str | None) -> None:
    """Tell in the folder itself what it is and where it came from."""
    told = {
        "name": entry.name,
        "license": entry.license,
        "source": entry.source,
        "commit": commit,
        "files": [asdict(file) for file in files],
    }
    write_text(folder / RECORD, json.dumps(told, indent=2) + "\n")
