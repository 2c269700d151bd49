"""Real recordings that teach gama-mini: the committed list of clips, and the manifest rebuilt from a folder of them.

The list (``real_clips.jsonl`` beside this file) says where every clip comes from, under which licence, and the hash of
its samples; the clips themselves are in no package. One line holds ``path``, ``label`` (the source's), ``ours`` (our
class), ``fold`` (ESC fold or null), ``group`` (the original recording), ``licence``, ``attribution``, ``url``,
``sha1_pcm`` (16-bit mono samples at 16 kHz) and ``dataset``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gama.atomic import check_output, make_folder, write_json
from gama.data.manifest import records
from gama.data.remap import absolute
from gama.data.scenes.classes import BY_LABEL
from gama.data.scenes.scene import Event, Scene
from gama.errors import AudioError, GamaError, ManifestError, OutputError

OUR_LABEL: dict[str, str] = {
    **{label: label for label in BY_LABEL},
    "cicadas": "crickets",
    "clapping": "applause",
    "clapping_crowd_applause": "applause",
    "clock_alarm": "alarm",
    "door_wood_knock": "door_knock",
    "owl_hoot": "owl",
    "piano_music": "piano",
}
"""Our class of every source label that is used; recordings with any other label are left out."""

QUESTION = "What do you hear?"
"""The instruction of every row."""


@dataclass(frozen=True)
class RealClip:
    """One line of the list."""

    path: str
    label: str
    ours: str
    fold: int | None
    group: str
    licence: str
    attribution: str
    url: str
    sha1_pcm: str
    dataset: str


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare_real` found.

    Attributes:
        manifest: the manifest written.
        used: clips in it.
        missing: paths of listed clips that the folder does not hold.
    """

    manifest: Path
    used: int
    missing: tuple[str, ...]


def real_clips() -> tuple[RealClip, ...]:
    """The committed list."""
    text = resources.files("gama.data").joinpath("real_clips.jsonl").read_text(encoding="utf-8")
    return tuple(RealClip(**json.loads(line)) for line in text.splitlines() if line)


def usable(index: Iterable[dict[str, Any]]) -> list[RealClip]:
    """The list for a source index (rows with ``file``, ``label``, ``fold``, ``source`` ...), by path.

    A clip without a fold that comes from the same original recording as one with a fold takes that fold, so that no
    recording is on both sides of a split.
    """
    rows = [row for row in index if row["label"] in OUR_LABEL]
    fold_of = {row["group"]: row["fold"] for row in rows if row["fold"] is not None}
    clips = [
        RealClip(
            path=row["file"],
            label=row["label"],
            ours=OUR_LABEL[row["label"]],
            fold=fold_of.get(row["group"]),
            group=row["group"],
            licence=row["licence"],
            attribution=row["attribution"] or "",
            url=row["url"] or "",
            sha1_pcm=row["sha1_pcm"],
            dataset=row["source"],
        )
        for row in rows
    ]
    return sorted(clips, key=lambda c: c.path)


def prepare_real(audio_root: Path, out: Path) -> Prepared:
    """Checks every listed clip under ``audio_root`` and writes ``out/manifest.json``.

    Each row has the original's fields (``audio_id`` absolute, ``instruction``, ``input``, ``output``, ``dataset``,
    ``task``), the whole clip's truth (one event over its active span) and ``fold``, ``group``, ``licence``,
    ``attribution``.

    Raises:
        OutputError: where ``out`` cannot be written, or holds another manifest.
        GamaError: when the folder holds none of the clips.
        AudioError: when a clip is not the one listed.
    """
    manifest = out / "manifest.json"
    _check_output(manifest)
    clips = real_clips()
    missing = tuple(c.path for c in clips if not (audio_root / c.path).is_file())
    if len(missing) == len(clips):
        raise GamaError(
            f"{audio_root} holds none of the {len(clips)} listed clips, such as {clips[0].path}",
            "give the folder that holds clips/*.flac, converted to 16 kHz mono as real_clips.jsonl lists them",
        )
    lost = frozenset(missing)
    rows = [_row(audio_root, c) for c in clips if c.path not in lost]
    make_folder(out)
    write_json(manifest, rows, indent=1, durable=True)
    return Prepared(manifest, len(rows), missing)


def _check_output(manifest: Path) -> None:
    """Refuse to write over a manifest of anything else."""
    check_output(manifest, make_folder=True)
    if not manifest.is_file():
        return
    try:
        first = next(iter(records(manifest)), None)
    except ManifestError:
        first = None
    if not isinstance(first, dict) or first.get("instruction") != QUESTION or "attribution" not in first:
        raise OutputError(f"{manifest}: holds something else than real recordings", "give another folder: --out DIR")


def _row(audio_root: Path, clip: RealClip) -> dict[str, Any]:
    path = absolute(audio_root / clip.path)
    samples = _checked(path, clip.sha1_pcm)
    return {
        "audio_id": path.as_posix(),
        "instruction": QUESTION,
        "input": "",
        "output": f"{BY_LABEL[clip.ours].clause}.",
        "dataset": clip.dataset,
        "task": "what",
        **_truth(clip, samples).to_row(),
        "fold": clip.fold,
        "group": clip.group,
        "licence": clip.licence,
        "attribution": clip.attribution,
    }


def _checked(path: Path, sha1_pcm: str) -> np.ndarray[Any, np.dtype[np.int16]]:
    """(n,) samples of a clip that must be the listed one."""
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="int16")
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read {path}: {error}", "fetch the clip again") from error
    if rate != 16_000 or samples.ndim != 1 or hashlib.sha1(samples.tobytes()).hexdigest() != sha1_pcm:
        raise AudioError(f"{path} is not the listed clip: its samples have another hash", "fetch the clip again")
    return samples


def _truth(clip: RealClip, samples: np.ndarray[Any, np.dtype[np.int16]]) -> Scene:
    from gama.data.scenes.compose import centroid, rms_db
    from gama.data.scenes.synth_blocks import RATE
    from gama.data.scenes.takes import active_span, single_sounds

    x = samples.astype(np.float32) / np.float32(32768)
    start, end = active_span(x, depth=40)
    part = x[int(start * RATE) : int(end * RATE)]
    texture = BY_LABEL[clip.ours].unit is None
    event = Event(
        label=clip.ours,
        start=round(start, 3),
        end=round(end, 3),
        count=1 if texture else len(single_sounds(part, clip.ours)),
        level_db=round(rms_db(part), 2),
        centroid_hz=round(centroid(part), 1),
        source=Path(clip.path).name,
    )
    return Scene(duration=round(len(x) / RATE, 3), events=(event,))
