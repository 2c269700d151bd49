"""Writes composed scenes to disk: FLAC files and one manifest with questions, true answers and the exact truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gama.atomic import make_folder, open_text, temporary_files, write_bytes
from gama.audio.encoding import encoded
from gama.data.scenes.compose import compose
from gama.data.scenes.questions import ask
from gama.data.scenes.synth_blocks import RATE, Samples
from gama.data.scenes.takes import RealTakes, takes_by_fold
from gama.errors import GamaError, ManifestError
from gama.locks import LOCK, locked
from gama.processes import process_pool, shielded

Takes = dict[int | None, RealTakes]
"""The recordings a scene may hold, by its fold; those without a fold belong to every one."""


@dataclass(frozen=True)
class _Job:
    """What a worker needs to write any scene of a set."""

    out: Path
    seed: int
    real: Path | None
    folds: tuple[int, ...] | None
    questions: int
    real_share: float


def write_scenes(
    out: Path,
    count: int,
    seed: int,
    *,
    real: Path | None = None,
    folds: tuple[int, ...] | None = None,
    questions: int = 1,
    real_share: float = 0.6,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
    shared: bool = False,
) -> Path:
    """Writes ``count`` scenes to ``out/audio/000000.flac`` ... and their rows to ``out/manifest.json``.

    Every row has ``audio_id`` (relative to the manifest), ``instruction``, ``input``, ``output``, ``dataset``
    (``scenes``), ``task``, the truth (``events``, ``duration``, ``noise``) and ``check``: what decides whether an
    answer is right, the further fields of :class:`gama.data.scenes.answers.QA`. The recordings in a scene are of one
    fold, which its rows name (``fold``), or of none, so that scenes can be left out as recordings are. Scene i depends
    on ``seed`` and i alone, not on ``count`` or ``workers``.

    Args:
        out: a new or empty folder, or one where an earlier call was interrupted.
        count: how many scenes.
        seed: of everything random.
        real: manifest of real recordings to mix in; None for procedural sounds alone.
        folds: use only recordings of these folds and those without a fold.
        questions: rows for each scene.
        real_share: share of the sounds that are real where there are recordings enough.
        progress: called with how many scenes were finished since its last call.
        workers: processes.
        shared: wait for another process that writes this folder, and take what it has written.

    Returns:
        The manifest.

    Raises:
        LockedError: while another process writes this folder.
        ManifestError: when ``out`` holds anything else, or ``real`` cannot be used.
    """
    if count < 1 or questions < 1 or workers < 1 or seed < 0:
        given = f"count {count}, questions {questions}, workers {workers}, seed {seed}"
        raise GamaError(f"{given} were given; at least 1, 1, 1 and 0 were expected")
    job = _Job(out, seed, real, folds, questions, real_share)
    manifest = out / "manifest.json"
    make_folder(out)
    with locked(out, "these scenes", inside=True, wait=math.inf if shared else 0.0):
        if shared and manifest.is_file():
            return manifest
        _check_folder(out)
        _clear(out)
        _write_all(manifest, job, count, workers, progress)
    return manifest


def _write_all(manifest: Path, job: _Job, count: int, workers: int, progress: Callable[[int], None] | None) -> None:
    make_folder(job.out / "audio")
    with open_text(manifest, durable=True) as file:
        before = "["
        for rows in _written(job, count, workers):
            for row in rows:
                file.write(f"{before}\n{json.dumps(row, ensure_ascii=False)}")
                before = ","
            if progress is not None:
                progress(1)
        file.write("\n]\n")


def _clear(out: Path) -> None:
    """Take away what a run has left half-written that was killed."""
    for left in (*temporary_files(out), *temporary_files(out / "audio"), out / "manifest.json.partial"):
        left.unlink(missing_ok=True)


def _check_folder(out: Path) -> None:
    if (out / "manifest.json").exists():
        raise ManifestError(f"{out} holds a manifest already", "choose another folder or remove this one")
    own = {"audio", LOCK, "manifest.json.partial", *(path.name for path in temporary_files(out))}
    if out.exists() and (strangers := sorted({p.name for p in out.iterdir()} - own)):
        raise ManifestError(f"{out} is not empty: it holds {strangers[0]}", "choose a new folder for the scenes")


def _written(job: _Job, count: int, workers: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of every scene in order, its clip written."""
    if workers == 1:
        takes = _takes(job)
        for index in range(count):
            yield _write(job, takes, index)
        return
    with process_pool(workers, _start, (job,)) as pool:
        with shielded():
            written = pool.map(_write_here, range(count), chunksize=max(1, min(32, count // (4 * workers))))
        yield from written


def _takes(job: _Job) -> Takes:
    return takes_by_fold(job.real, folds=job.folds) if job.real is not None else {}


_HERE: dict[str, Any] = {}


def _start(job: _Job) -> None:
    """Decodes the recordings once in every worker."""
    _HERE["job"], _HERE["takes"] = job, _takes(job)


def _write_here(index: int) -> list[dict[str, Any]]:
    return _write(_HERE["job"], _HERE["takes"], index)


def _write(job: _Job, takes: Takes, index: int) -> list[dict[str, Any]]:
    fold = _fold(takes, np.random.default_rng([job.seed, index, 2]))
    samples, scene = compose(np.random.default_rng([job.seed, index]), takes=takes.get(fold), real_share=job.real_share)
    if fold is not None and not any(event.source in takes[fold].folded for event in scene.events):
        fold = None  # nothing of that fold came to be heard
    name = f"audio/{index:06d}.flac"
    _save(job.out / name, samples[: round(scene.duration * RATE)])
    rows = []
    for qa in ask(scene, np.random.default_rng([job.seed, index, 1]), job.questions):
        check = asdict(qa)
        row = {"audio_id": name, "instruction": check.pop("instruction"), "input": "", "output": check.pop("output")}
        row |= {"dataset": "scenes", "task": check.pop("task"), **scene.to_row(), "fold": fold, "check": check}
        rows.append(row)
    return rows


def _fold(takes: Takes, rng: np.random.Generator) -> int | None:
    """One of the folds there are recordings of; None where none has a fold."""
    folds = [fold for fold in takes if fold is not None]
    return folds[int(rng.integers(len(folds)))] if folds else None


def _save(path: Path, samples: Samples) -> None:
    """16-bit FLAC, complete under its name or absent."""
    write_bytes(path, encoded(samples, "FLAC", "PCM_16", rate=RATE))
