"""What clips became in the audio tower, kept by the content of the sound: in memory, and on disk. No torch.

A prefix depends on the samples that are heard and on the weights, precision and settings that hear them. Its file is
named by the hashes of both, so the same sound in another file, or the same span of another recording, is found again,
and nothing is found that another model has heard.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gama.atomic import make_folder, write_bytes
from gama.errors import GamaError, OutputError

Precision = Literal["float32", "float16", "bfloat16"]

_KEPT = 64  # prefixes held in memory
_MAGIC = b"gama prefix 1\n"
_SUFFIX = ".prefix"
_DIGEST = 32  # bytes of SHA-256
_LONGEST_HEADER = 4096  # bytes
_STORED_AS: dict[str, str] = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}  # numpy has no bfloat16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A prefix as it lies on disk.

    Attributes:
        values: (P, D); bfloat16 as the unsigned integers of its bits.
        precision: what the values are.
    """

    values: NDArray[Any]
    precision: Precision = "float32"


class PrefixStore:
    """Prefixes in a folder; several processes may use one.

    Every file is written beside its place and renamed, and carries the hash of its content. The files that were
    unused for longest go when all of them hold more than ``limit`` bytes.

    Args:
        folder: made where it does not exist.
        limit: bytes.

    Raises:
        GamaError: where the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, *, limit: int = 2 * 10**9) -> None:
        self.folder = folder
        self.limit = limit
        self._size: int | None = None  # of all files, as far as this process knows
        self._is_full = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GamaError(
                f"{folder}: no cache can be kept there: {error.strerror or error}", "give another folder: --cache DIR"
            ) from error

    def load(self, model: str, sound: str) -> Stored | None:
        """The prefix of a sound; None where there is none. A damaged file is told of and taken away.

        Args:
            model: :meth:`gama.inference.asking.Asker.hearing_key`.
            sound: SHA-256 of the samples.
        """
        path = self._path(model, sound)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        stored = _unpacked(content)
        if stored is None:
            logger.warning("%s: the kept prefix is damaged; the clip is heard again", path)
            _remove(path)
            return None
        _touch(path)
        return stored

    def save(self, model: str, sound: str, stored: Stored) -> None:
        """Keep a prefix; where the disk does not take it, that is told once and nothing else happens."""
        if self._is_full:
            return
        path = self._path(model, sound)
        content = _packed(stored)
        try:
            make_folder(path.parent)
            write_bytes(path, content)
        except OutputError as error:
            self._is_full = True
            logger.warning("%s: prefixes are no longer kept there: %s", self.folder, error.message)
            return
        self._grow(len(content))

    def _path(self, model: str, sound: str) -> Path:
        return self.folder / model[:32] / sound[:2] / f"{sound}{_SUFFIX}"

    def _grow(self, size: int) -> None:
        self._size = self._measure() if self._size is None else self._size + size
        if self._size > self.limit:
            self._size = self._shrink()

    def _measure(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _shrink(self) -> int:
        """Let the longest unused files go until a tenth of the limit is free; what is left."""
        files = sorted(self._files())
        size = sum(size for _, size, _ in files)
        for _, each, path in files:
            if size <= self.limit * 9 // 10:
                break
            _remove(path)
            size -= each
        return size

    def _files(self) -> Iterable[tuple[float, int, Path]]:
        """Time of last use, bytes and path of every file; another process may take some away meanwhile."""
        for path in self.folder.glob(f"*/*/*{_SUFFIX}"):
            try:
                facts = path.stat()
            except OSError:
                continue
            yield facts.st_mtime, facts.st_size, path


class Prefixes:
    """Prefixes of the sounds heard last, whatever holds them.

    Attributes:
        store: where they are kept beyond this process; None for nowhere.
        most: how many are held in memory.
    """

    def __init__(self, store: PrefixStore | None = None) -> None:
        self.store = store
        self.most = _KEPT
        self._held: dict[str, Any] = {}  # the longest unused first

    def __len__(self) -> int:
        return len(self._held)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._held.clear()

    def gather(
        self,
        sounds: Sequence[str],
        compute: Callable[[list[int]], Iterable[Any]],
        *,
        model: Callable[[], str],
        pack: Callable[[Any], Stored],
        unpack: Callable[[Stored], Any],
    ) -> list[Any]:
        """The prefix of each sound; each is computed at most once.

        Args:
            sounds: their hashes.
            compute: takes the indices of the sounds that are not held, and gives their prefixes.
            model: what a file depends on beside the sound; called where there is a store.
            pack, unpack: from and to what a store holds.
        """
        missing = {sound: i for i, sound in reversed(list(enumerate(sounds))) if sound not in self._held}
        found = {sound: self._held.pop(sound) for sound in dict.fromkeys(sounds) if sound in self._held}
        key = model() if self.store is not None and missing else ""
        if self.store is not None:
            for sound in list(missing):
                if (stored := self.store.load(key, sound)) is not None:
                    found[sound] = unpack(stored)
                    del missing[sound]
        order = sorted(missing, key=missing.__getitem__)
        if order:
            for sound, prefix in zip(order, compute([missing[sound] for sound in order]), strict=True):
                found[sound] = prefix
                if self.store is not None:
                    self.store.save(key, sound, pack(prefix))
        self._held |= found
        for sound in list(self._held)[: -self.most]:
            del self._held[sound]
        return [found[sound] for sound in sounds]


def _packed(stored: Stored) -> bytes:
    values = np.ascontiguousarray(stored.values, dtype=_STORED_AS[stored.precision])
    header = json.dumps({"precision": stored.precision, "shape": values.shape}).encode() + b"\n"
    body = header + values.tobytes()
    return _MAGIC + hashlib.sha256(body).digest() + body


def _unpacked(content: bytes) -> Stored | None:
    """What a file holds; None for one that is damaged."""
    begin = len(_MAGIC) + _DIGEST
    body = content[begin:]
    if content[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != content[len(_MAGIC) : begin]:
        return None
    end = body.index(b"\n", 0, _LONGEST_HEADER)  # what is hashed was written by _packed
    header = json.loads(body[:end])
    values = np.frombuffer(body, dtype=_STORED_AS[header["precision"]], offset=end + 1)
    return Stored(values.reshape(header["shape"]), header["precision"])


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:  # another process was faster, or the folder cannot be written to
        logger.debug("%s: not removed: %s", path, error)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError as error:
        logger.debug("%s: the time of use is not kept: %s", path, error)


def digest(parts: Iterable[bytes | memoryview | str]) -> str:
    """SHA-256 of parts, each told apart from the next."""
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(len(content).to_bytes(8, "little"))
        whole.update(content)
    return whole.hexdigest()


__all__ = ["Prefixes", "PrefixStore", "Stored", "digest"]
