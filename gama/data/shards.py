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
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gama import audio
from gama.atomic import make_folder, temporary_files, write_bytes
from gama.data.parallel import mapped
from gama.data.remap import absolute
from gama.data.shard_index import KEY, Digests, Facts, Folder, Journal, named, packed, positions, remember
from gama.errors import AudioError, row_error
from gama.fbank import DOUBLE_STD, FRAME_LENGTH, FRAME_SHIFT, MEAN, kaldi_fbank
from gama.locks import locked

VERSION = 1
"""Raise when the front end changes."""
FRAMES, BINS = 1024, 128
SHARD = 256
"""Clips of a shard: 64 MiB where they last 10.24 s or more."""

_HEARD = (FRAME_LENGTH + (FRAMES - 1) * FRAME_SHIFT) / audio.SAMPLE_RATE  # seconds that reach a frame
_PADDING = np.float16(-MEAN / DOUBLE_STD)
_STALE = 3600.0  # seconds
_CHUNK = 65_536  # clips looked at together
_NO_KEY = "00" * KEY.itemsize

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
    summed = hashlib.sha256(b"gama-fbank %d\n" % VERSION)
    summed.update(content)
    return summed.hexdigest()[:32]


def fbank_of(content: bytes | Path, name: str) -> np.ndarray:
    """(T, 128) float32 normalised log-mel of the true frames of a clip, at most 1024.

    Raises:
        AudioError: naming the clip.
    """
    import torch

    samples = audio.load(content, end=_HEARD, max_duration=_HEARD + 1, name=name).samples
    frames = min(FRAMES, 1 + (len(samples) - FRAME_LENGTH) // FRAME_SHIFT)
    with torch.inference_mode():
        values: np.ndarray = kaldi_fbank()(torch.from_numpy(samples).unsqueeze(0))[0, :frames].numpy()
    return values


def halved(values: np.ndarray) -> np.ndarray:
    """The same rounded to float16: by torch, which takes a fraction of numpy's time."""
    import torch

    halves: np.ndarray = torch.from_numpy(values).half().numpy()
    return halves


def padded(values: np.ndarray) -> np.ndarray:
    """(T, 128) float16 -> (1024, 128): silence of padding behind the true frames."""
    whole = np.full((FRAMES, BINS), _PADDING, dtype=np.float16)
    whole[: len(values)] = values
    return whole


def single_thread() -> None:
    """For a process that is one of many."""
    import torch

    torch.set_num_threads(1)


def _keep_memory() -> None:
    """Let glibc keep what is freed, which by default goes back to the system after every clip and comes again in pages.

    A freed block that had a mapping of its own raises the size from which it gives memory back to twice the block's
    size (mallopt(3), M_MMAP_THRESHOLD); 32 MiB is the largest that counts. Nothing is written to it.
    """
    np.empty(31 * 2**20, np.uint8)


def make_shard(job: Job) -> Shard:
    """Compute the features of some clips and write their shard."""
    done: list[tuple[str, int, int, str]] = []
    failed: list[tuple[str, str]] = []
    values: list[np.ndarray] = []
    keys: dict[str, None] = {}
    _keep_memory()
    for path in job.paths:
        try:
            facts, content = os.stat(path), Path(path).read_bytes()
            key = digest(content)
            if key not in keys:
                values.append(halved(fbank_of(content, path)))
                keys[key] = None
            done.append((path, facts.st_size, facts.st_mtime_ns, key))
        except Exception as error:  # whatever a decoder raises is about this clip
            failed.append((path, str(row_error(error, path, AudioError))))
    if keys:
        _write(Path(job.folder), list(keys), values)
    return Shard(tuple(done), tuple(failed))


def _write(folder: Path, keys: list[str], values: list[np.ndarray]) -> None:
    from safetensors.numpy import save

    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
    tensors = {
        "values": np.concatenate(values),
        "frames": np.array([len(part) for part in values], dtype=np.int32),
        "crc32": np.array([zlib.crc32(part.data) for part in values], dtype=np.uint32),
    }
    content = save(tensors, metadata={"front_end": str(VERSION), "keys": " ".join(keys)})
    write_bytes(folder / f"fbank-{name}.safetensors", content)


def _digests(
    names: Sequence[str], journal: Journal, workers: int
) -> tuple[dict[str, str], list[Facts], dict[str, str]]:
    """The digest of every file, what had to be read for it, and the files that cannot be read with why."""
    keys: dict[str, str] = {}
    unknown = []
    for name in names:
        known = None
        with suppress(OSError):
            known = journal.digest(name, os.stat(name))
        if known is None:
            unknown.append(name)
        else:
            keys[name] = known
    failed: dict[str, str] = {}
    fresh: list[Facts] = []
    for result in mapped(_hashed, unknown, workers=workers if len(unknown) > SHARD else 1):
        if len(result) == 2:
            failed[result[0]] = result[1]
        else:
            keys[result[0]] = result[3]
            fresh.append(result)
    return keys, fresh, failed


def _hashed(path: str) -> Facts | tuple[str, str]:
    try:
        facts = os.stat(path)
        return path, facts.st_size, facts.st_mtime_ns, digest(Path(path).read_bytes())
    except OSError as error:
        return path, f"{path}: {error.strerror or error}"


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
    return _Building(paths, folder, workers, size, engine, address, progress or (lambda _: None)).built()


@dataclass
class _Building:
    """The work of :func:`build`, some thousands of clips after the others.

    Attributes:
        keys: digest of every clip; empty bytes for one that failed.
    """

    paths: Sequence[Path]
    folder: Path
    workers: int
    size: int
    engine: Engine
    address: str | None
    advance: Callable[[int], None]
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, KEY))

    def built(self) -> Built:
        with ExitStack() as self._lock:
            return self._built()

    def _built(self) -> Built:
        make_folder(self.folder)
        self._locked = False
        self._read()
        self.keys = np.zeros(len(self.paths), KEY)
        names, failed, computed = np.zeros(len(self.paths), KEY), dict[str, str](), 0
        for begin in range(0, len(self.paths), _CHUNK):
            chunk = [str(absolute(path)) for path in self.paths[begin : begin + _CHUNK]]
            fresh = dict.fromkeys(chunk)
            if begin:
                seen = np.isin(named(fresh), names[:begin])
                self.advance(-int(seen.sum()))  # told before
            keys, bad, done = self._chunk(list(fresh))
            self.keys[begin : begin + len(chunk)] = packed(keys.get(name, _NO_KEY) for name in chunk)
            names[begin : begin + len(chunk)] = named(chunk)
            failed |= bad
            computed += done
        return Built(len(np.unique(names)), computed, tuple((Path(path), why) for path, why in failed.items()))

    def _read(self) -> None:
        """What is there already."""
        self._journal, self._there = Journal(self.folder), Folder(self.folder, VERSION).keys

    def _sole_writer(self) -> None:
        """Wait until nobody else adds to the folder, and see what they have added; to read it takes no lock."""
        if not self._locked:
            self._lock.enter_context(locked(self.folder, "these features", inside=True, wait=math.inf))
            self._locked = True
            _sweep(self.folder)
            self._read()

    def _missing(self, keys: dict[str, str]) -> list[str]:
        """A file of every content that is not there."""
        by_key = {key: name for name, key in keys.items()}
        absent = positions(self._there, packed(by_key)) < 0
        return [name for name, gone in zip(by_key.values(), absent, strict=True) if gone]

    def _chunk(self, names: list[str]) -> tuple[dict[str, str], dict[str, str], int]:
        """Digests and failures of some files, and how many contents were computed."""
        keys, fresh, failed = _digests(names, self._journal, self.workers)
        missing = self._missing(keys)
        if fresh or missing:
            self._sole_writer()
            missing = self._missing(keys)
        if fresh:
            remember(self.folder, fresh)
        self.advance(len(keys) - len(missing))
        folder = str(self.folder.resolve())
        jobs = [Job(tuple(missing[i : i + self.size]), folder) for i in range(0, len(missing), self.size)]
        computed = [np.zeros(0, KEY)]
        for shard in _shards(jobs, self.workers, self.engine, self.address):
            keys |= {path: key for path, _, _, key in shard.done}  # a file may have changed since it was hashed
            computed.append(packed(key for _, _, _, key in shard.done))
            failed |= dict(shard.failed)
            remember(self.folder, shard.done)
            self.advance(len(shard.done) + len(shard.failed))
        new = np.concatenate(computed)
        self._there = np.union1d(self._there, new)
        return keys, failed, len(new)


def _sweep(folder: Path) -> None:
    """Take away what a killed run left; a shard is written in seconds."""
    for partial in (*temporary_files(folder), *folder.glob(".*.partial")):  # the latter of gama 0.1
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
        self.paths = paths
        building = _Building(paths, folder, workers, SHARD, "local", None, progress or (lambda _: None))
        built = building.built()
        if built.failed:
            raise AudioError(built.failed[0][1], "put it back or take its rows out; gama prepare check finds them all")
        self.keys = Digests(building.keys)
        self.folder = Folder(folder, VERSION)
        self._places = self.folder.find(building.keys)
        self.frames: np.ndarray = self.folder.frames[self._places]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        values = self.folder.read(int(self._places[index]))
        if values is None:
            path = self.paths[index]
            values = halved(fbank_of(path, str(path)))
        return padded(values)


def damaged(folder: Path) -> list[str]:
    """Digests whose features differ from their checksum."""
    shards = Folder(folder, VERSION)
    keys = Digests(shards.keys)
    return [keys[place] for place in range(len(keys)) if shards.read(place) is None]


def job_text(job: Job) -> str:
    """A job as text, for another machine."""
    return json.dumps(asdict(job))


def job_of(text: str) -> Job:
    """The job of :func:`job_text`."""
    fields = json.loads(text)
    return Job(tuple(fields["paths"]), fields["folder"])
