"""Features of clips in shards: computed once for each content, on any number of machines, and checked when read.

A folder of shards holds ``fbank-NAME.safetensors`` files. Each carries the true frames of some clips one after the
other (``values``, (frames of all, 128) float16), how many are whose (``frames``), a checksum of each, and in its
metadata the digest of every clip's file. Nothing else is needed: the index is read from the shards, so it cannot differ
from them. ``paths.jsonl`` remembers which file had which digest, so that unchanged files are not read again.

A shard appears whole or not at all. A run that was stopped goes on with the clips whose shards are not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gama import audio
from gama.data.parallel import mapped
from gama.errors import AudioError
from gama.fbank import DOUBLE_STD, FRAME_LENGTH, FRAME_SHIFT, MEAN, kaldi_fbank

VERSION = 1
"""Raise when the front end changes."""
FRAMES, BINS = 1024, 128
SHARD = 256
"""Clips of a shard: 64 MiB where they last 10.24 s or more."""

_HEARD = (FRAME_LENGTH + (FRAMES - 1) * FRAME_SHIFT) / audio.SAMPLE_RATE  # seconds that reach a frame
_PADDING = np.float16(-MEAN / DOUBLE_STD)
_STALE = 3600.0  # seconds
_JOURNAL = "paths.jsonl"

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Job:
    """Some clips that become one shard."""

    paths: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class Shard:
    """What became of a job.

    Attributes:
        done: (path, size, time of change in ns, digest) of every clip in the shard.
        failed: (path, why) of the others.
    """

    done: tuple[tuple[str, int, int, str], ...]
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Built:
    """What :func:`build` did.

    Attributes:
        clips: files named.
        computed: contents computed now.
        failed: files that could not be used, and why.
    """

    clips: int
    computed: int
    failed: tuple[tuple[Path, str], ...]


def digest(content: bytes) -> str:
    """What features are found by: 32 hex characters of a file's bytes and the version of the front end."""
    return hashlib.sha256(b"gama-fbank %d\n" % VERSION + content).hexdigest()[:32]


def fbank_of(content: bytes | Path, name: str) -> np.ndarray:
    """(T, 128) float32 normalised log-mel of the true frames of a clip, at most 1024.

    Raises:
        AudioError: naming the clip.
    """
    import torch

    samples = audio.load(content, end=_HEARD, max_duration=_HEARD + 1, name=name).samples
    frames = min(FRAMES, 1 + (len(samples) - FRAME_LENGTH) // FRAME_SHIFT)
    values: np.ndarray = kaldi_fbank()(torch.from_numpy(samples).unsqueeze(0))[0, :frames].numpy()
    return values


def padded(values: np.ndarray) -> np.ndarray:
    """(T, 128) float16 -> (1024, 128): silence of padding behind the true frames."""
    whole = np.full((FRAMES, BINS), _PADDING, dtype=np.float16)
    whole[: len(values)] = values
    return whole


def single_thread() -> None:
    """For a process that is one of many."""
    import torch

    torch.set_num_threads(1)


def make_shard(job: Job) -> Shard:
    """Compute the features of some clips and write their shard."""
    done: list[tuple[str, int, int, str]] = []
    failed: list[tuple[str, str]] = []
    values: list[np.ndarray] = []
    keys: dict[str, None] = {}
    for path in job.paths:
        try:
            facts, content = os.stat(path), Path(path).read_bytes()
            key = digest(content)
            if key not in keys:
                values.append(fbank_of(content, path).astype(np.float16))
                keys[key] = None
            done.append((path, facts.st_size, facts.st_mtime_ns, key))
        except AudioError as error:
            failed.append((path, str(error)))
        except OSError as error:
            failed.append((path, f"{path}: {error.strerror or error}"))
    if keys:
        _write(Path(job.folder), list(keys), values)
    return Shard(tuple(done), tuple(failed))


def _write(folder: Path, keys: list[str], values: list[np.ndarray]) -> None:
    from safetensors.numpy import save

    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    partial = folder / f".{name}.{os.getpid()}.partial"
    tensors = {
        "values": np.concatenate(values),
        "frames": np.array([len(part) for part in values], dtype=np.int32),
        "crc32": np.array([zlib.crc32(part.data) for part in values], dtype=np.uint32),
    }
    try:
        # save_file would make it readable for its owner alone
        partial.write_bytes(save(tensors, metadata={"front_end": str(VERSION), "keys": " ".join(keys)}))
        os.replace(partial, folder / f"fbank-{name}.safetensors")
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Place:
    """Where the features of one content lie: frames ``begin`` to ``begin + frames`` of a file's ``values``."""

    file: int
    begin: int
    frames: int
    crc32: int


class Folder:
    """The shards of a folder, mapped when they are first read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[Path] = []
        self.places: dict[str, Place] = {}
        self._mapped: dict[int, np.ndarray] = {}
        for file in sorted(path.glob("fbank-*.safetensors")):
            with suppress(ValueError, KeyError, OSError):  # no whole shard: its clips are computed again
                self._add(file)

    def _add(self, file: Path) -> None:
        header, begin = _header(file)
        if header["__metadata__"].get("front_end") != str(VERSION):
            return
        tensors = {name: _tensor(file, begin, header[name]) for name in ("values", "frames", "crc32")}
        keys, first = header["__metadata__"]["keys"].split(), 0
        frames, sums = tensors["frames"].tolist(), tensors["crc32"].tolist()
        if len(keys) != len(frames) or sum(frames) != len(tensors["values"]):
            return
        self.files.append(file)
        for key, count, crc in zip(keys, frames, sums, strict=True):
            self.places[key] = Place(len(self.files) - 1, first, count, crc)
            first += count

    def read(self, key: str) -> np.ndarray | None:
        """(T, 128) float16; None where the shard is damaged there."""
        place = self.places[key]
        if place.file not in self._mapped:
            file = self.files[place.file]
            header, begin = _header(file)
            self._mapped[place.file] = _tensor(file, begin, header["values"])
        values = self._mapped[place.file][place.begin : place.begin + place.frames]
        return values if zlib.crc32(values.data) == place.crc32 else None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}}  # another process maps for itself


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The table of a safetensors file, and where its bytes begin."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file} is cut off")
        header: dict[str, Any] = json.loads(opened.read(length))
    return header, 8 + length


def _tensor(file: Path, begin: int, entry: dict[str, Any]) -> np.ndarray:
    kind = {"F16": np.float16, "I32": np.int32, "U32": np.uint32}[entry["dtype"]]
    offset = begin + entry["data_offsets"][0]
    return np.memmap(file, dtype=kind, mode="r", offset=offset, shape=tuple(entry["shape"]))


def _journal(folder: Path) -> dict[str, tuple[int, int, str]]:
    """(size, time, digest) of every file that was read."""
    known: dict[str, tuple[int, int, str]] = {}
    with suppress(FileNotFoundError), (folder / _JOURNAL).open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError):  # the last line of a run that was killed
                path, size, changed, key = json.loads(line)
                known[path] = size, changed, key
    return known


def _remember(folder: Path, done: Iterable[tuple[str, int, int, str]]) -> None:
    text = "".join(json.dumps(entry) + "\n" for entry in done)
    with (folder / _JOURNAL).open("a", encoding="utf-8") as file:
        file.write(text)


def _hashed(path: str) -> tuple[str, int, int, str] | tuple[str, str]:
    try:
        facts = os.stat(path)
        return path, facts.st_size, facts.st_mtime_ns, digest(Path(path).read_bytes())
    except OSError as error:
        return path, f"{path}: {error.strerror or error}"


def keys_of(paths: Sequence[Path], folder: Path, *, workers: int = 1) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The digest of every file, and the files that cannot be read with why."""
    known, keys, unknown = _journal(folder), {}, []
    for name in dict.fromkeys(str(path.resolve()) for path in paths):
        facts = None
        with suppress(OSError):
            facts = os.stat(name)
        if facts is not None and known.get(name, ())[:2] == (facts.st_size, facts.st_mtime_ns):
            keys[name] = known[name][2]
        else:
            unknown.append(name)
    failed, fresh = [], []
    for result in mapped(_hashed, unknown, workers=workers if len(unknown) > SHARD else 1):
        if len(result) == 2:
            failed.append(result)
        else:
            keys[result[0]] = result[3]
            fresh.append(result)
    if fresh:
        folder.mkdir(parents=True, exist_ok=True)
        _remember(folder, fresh)
    return keys, failed


def build(
    paths: Sequence[Path],
    folder: Path,
    *,
    workers: int = 1,
    size: int = SHARD,
    engine: Engine = "local",
    address: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Compute what is missing of the features of some clips.

    Args:
        paths: clips.
        folder: of the shards; of a file system that all machines share, with ``engine="ray"``.
        workers: processes of this machine.
        size: clips of a shard.
        engine, address: ``ray`` computes on the Ray cluster at that address.
        progress: called with how many files are done since its last call.
    """
    advance = progress or (lambda _: None)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    keys, failed = keys_of(paths, folder, workers=workers)
    there = Folder(folder).places
    missing = list({key: name for name, key in keys.items() if key not in there}.values())
    advance(len(keys) - len(missing))
    jobs = [Job(tuple(missing[i : i + size]), str(folder.resolve())) for i in range(0, len(missing), size)]
    computed = 0
    for shard in _shards(jobs, workers, engine, address):
        computed += len(shard.done)
        failed.extend(shard.failed)
        _remember(folder, shard.done)
        advance(len(shard.done) + len(shard.failed))
    return Built(
        len(keys.keys() | {path for path, _ in failed}), computed, tuple((Path(path), why) for path, why in failed)
    )


def _sweep(folder: Path) -> None:
    """Take away what a killed run left; a shard is written in seconds."""
    for partial in folder.glob(".*.partial"):
        with suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _STALE:
                partial.unlink()


def _shards(jobs: Sequence[Job], workers: int, engine: Engine, address: str | None) -> Iterator[Shard]:
    if engine == "ray":
        from gama.data.ray_shards import on_ray

        yield from on_ray(jobs, address)
    else:
        yield from mapped(make_shard, jobs, workers=min(workers, max(1, len(jobs))), batch=1, start=single_thread)


class ShardStore:
    """The features of a list of clips: ``store[i]`` is (1024, 128) float16, ``store.frames[i]`` its true frames.

    What is missing is computed when the store is opened; a damaged clip is computed again when it is read.

    Args:
        paths: clips, in the order of their index.
        folder: of the shards.
        workers: processes that compute what is missing.
        progress: called with how many clips are done since its last call.

    Raises:
        AudioError: naming the first clip that is not there or cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        folder: Path,
        *,
        workers: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.paths = list(paths)
        built = build(self.paths, folder, workers=workers, progress=progress)
        if built.failed:
            raise AudioError(built.failed[0][1], "put it back or take its rows out; gama prepare check finds them all")
        keys, _ = keys_of(self.paths, folder)
        self.keys = [keys[str(path.resolve())] for path in self.paths]
        self.folder = Folder(folder)
        self.frames = np.array([self.folder.places[key].frames for key in self.keys], dtype=np.int32)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        values = self.folder.read(self.keys[index])
        if values is None:
            path = self.paths[index]
            values = fbank_of(path, str(path)).astype(np.float16)
        return padded(values)


def damaged(folder: Path) -> list[str]:
    """Digests whose features differ from their checksum."""
    shards = Folder(folder)
    return [key for key in shards.places if shards.read(key) is None]


def job_text(job: Job) -> str:
    """A job as text, for another machine."""
    return json.dumps(asdict(job))


def job_of(text: str) -> Job:
    """The job of :func:`job_text`."""
    fields = json.loads(text)
    return Job(tuple(fields["paths"]), fields["folder"])
