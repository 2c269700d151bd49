"""Rows of manifests as a few numbers each: millions of them stay on the disk and are parsed when they are asked for."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, overload

import numpy as np

from gama.data.json_stream import spans
from gama.data.manifest import Row, row_of
from gama.errors import ManifestError

_CLIP = 16  # bytes of the digest that tells clips apart
_SHOWN = 5  # rows that a message names
_NO_CLIP = bytes(_CLIP)


class RowIndex:
    """Where each row of some manifests lies, and which of them are about one clip.

    Every row is read once, and checked.

    Args:
        manifests: files; one named twice is read once and its rows stand twice in ``order``.
        fits: which rows are wanted; rows without a clip never are.

    Attributes:
        clips: how many different clips the wanted rows are about.
        clip: of every row, from 0 in order of first appearance; -1 for a row that is not wanted.
        truth: of every row, whether it carries its scene.
        empty_answers, empty_questions: the wanted rows without one, by their index.

    Raises:
        ManifestError: naming file, row and field.
    """

    def __init__(self, manifests: Sequence[Path], fits: Callable[[Row], bool] = lambda row: True) -> None:
        self.named = list(manifests)
        self.files = list(dict.fromkeys(manifests))
        self.handles: dict[int, int] = {}
        self.empty_answers, self.empty_questions = array("Q"), array("Q")
        begins, sizes, truth, keys, bounds = array("Q"), array("I"), bytearray(), bytearray(), [0]
        for path in self.files:
            self._require(path)
            for number, (begin, end, record) in enumerate(spans(path), 1):
                row = row_of(record, path, number)
                wanted = row.audio is not None and fits(row)
                begins.append(begin)
                sizes.append(end - begin)
                truth.append(row.scene is not None)
                if wanted and not row.output.strip():
                    self.empty_answers.append(len(begins) - 1)
                if wanted and not row.instruction.strip():
                    self.empty_questions.append(len(begins) - 1)
                keys += blake2b(os.fsencode(str(row.audio)), digest_size=_CLIP).digest() if wanted else _NO_CLIP
            bounds.append(len(begins))
        self.facts = [_facts(path.stat()) for path in self.files]
        self.begins, self.sizes = np.frombuffer(begins, np.uint64), np.frombuffer(sizes, np.uint32)
        self.truth = np.frombuffer(truth, np.bool_)
        self.bounds = np.array(bounds)
        self.clip, self.first = _numbered(np.frombuffer(keys, np.uint64).reshape(-1, 2))

    @staticmethod
    def _require(path: Path) -> None:
        if not path.is_file():
            raise ManifestError(f"{path}: no such manifest", "make one with: gama prepare scenes")

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, index: int) -> Row:
        """A row, read from its manifest.

        Raises:
            ManifestError: where the manifest has changed since it was indexed.
        """
        source = int(np.searchsorted(self.bounds, index, side="right")) - 1
        path = self.files[source]
        if source not in self.handles:
            self.handles[source] = os.open(path, os.O_RDONLY)
        handle = self.handles[source]
        if _facts(os.fstat(handle)) != self.facts[source]:
            raise ManifestError(f"{path}: was changed while it was read from", "put it back and continue with --resume")
        text = os.pread(handle, int(self.sizes[index]), int(self.begins[index]))
        return row_of(json.loads(text), path, index - int(self.bounds[source]) + 1)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"handles": {}}  # another process opens for itself

    def __del__(self) -> None:
        for handle in getattr(self, "handles", {}).values():
            os.close(handle)

    def where(self, indices: Sequence[int]) -> str:
        """Where some rows stand, for a message: their manifest and number, the first few."""
        places = []
        for index in indices[:_SHOWN]:
            source = int(np.searchsorted(self.bounds, index, side="right")) - 1
            places.append(f"{self.files[source]}: row {index - int(self.bounds[source]) + 1}")
        return ", ".join(places) + (" …" if len(indices) > _SHOWN else "")

    @property
    def clips(self) -> int:
        return len(self.first)

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return sum(a.nbytes for a in (self.begins, self.sizes, self.truth, self.clip, self.first))

    def grouped(self, *, together: bool) -> tuple[np.ndarray, np.ndarray]:
        """The wanted rows in groups: rows of group ``i`` are ``order[starts[i]:starts[i + 1]]``.

        Args:
            together: whether rows of one manifest about one clip are a group; otherwise each row is one.

        Returns:
            order and starts, groups in order of first appearance.
        """
        each = [self._grouped(source, together=together) for source in range(len(self.files))]
        parts = [each[self.files.index(path)] for path in self.named]
        order = np.concatenate([np.zeros(0, np.uint32), *(rows for rows, _ in parts)])
        sizes = np.concatenate([np.zeros(0, np.uint32), *(counts for _, counts in parts)])
        return order, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])

    def _grouped(self, source: int, *, together: bool) -> tuple[np.ndarray, np.ndarray]:
        begin, end = self.bounds[source], self.bounds[source + 1]
        rows = (np.flatnonzero(self.clip[begin:end] >= 0) + begin).astype(np.uint32)
        if not together or not len(rows):
            return rows, np.ones(len(rows), np.uint32)
        # the first row that each clip has in this manifest, in place of the clip: groups in order of appearance
        _, first, inverse = np.unique(self.clip[rows], return_index=True, return_inverse=True)
        appeared = first[inverse]
        order = np.argsort(appeared, kind="stable")
        return rows[order], np.unique(appeared, return_counts=True)[1].astype(np.uint32)


class ClipPaths(Sequence[Path]):
    """The clips of an index, each read from the first row about it."""

    def __init__(self, rows: RowIndex) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows.clips

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        audio = self.rows[int(self.rows.first[index])].audio
        assert audio is not None  # rows without a clip have no number
        return audio


def _facts(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _numbered(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) digests -> (N,) numbers in order of first appearance, -1 for none; and the first row of each number."""
    numbers = np.full(len(keys), -1, np.int32)
    rows = np.flatnonzero(keys.any(axis=1))
    if not len(rows):
        return numbers, np.zeros(0, np.uint32)
    order = rows[np.lexsort((keys[rows, 1], keys[rows, 0]))]  # stable: the first row of a clip stands first
    new = np.concatenate([[True], (keys[order[1:]] != keys[order[:-1]]).any(axis=1)])
    first = order[new]
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    numbers[order] = rank[np.cumsum(new) - 1]
    return numbers, np.sort(first).astype(np.uint32)
