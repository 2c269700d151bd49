"""Mixtures of manifests: one YAML file that names, for every stage, the sets it reads and how often."""

from __future__ import annotations

import json
import random
import tempfile
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.atomic import check_output, is_special, make_folder, write_errors
from gama.data.manifest import Malformed, usable, writing
from gama.data.remap import Remap, named_from
from gama.errors import GamaError, ManifestError
from gama.text import shown

_KEYS = {"set", "repeats", "tasks", "pairs_in_paper"}
_MOST = 1000.0
_PACKAGED = Path(__file__).resolve().parent / "mixtures"


@dataclass(frozen=True)
class Part:
    """One manifest of a mixture.

    Attributes:
        manifest: the file.
        repeats: how often each of its rows comes; 2.5 is twice, and half of the rows a third time.
        tasks: only rows of these; empty: all.
    """

    manifest: Path
    repeats: float = 1.0
    tasks: tuple[str, ...] = ()


def mixture_file(name: str) -> Path:
    """The file of a packaged mixture, or the file of that name.

    Raises:
        GamaError: when it is neither; the message lists the packaged ones.
    """
    packaged = {path.stem: path for path in sorted(_PACKAGED.glob("*.yaml"))}
    if name in packaged:
        return packaged[name]
    if not Path(name).is_file():
        raise GamaError(f"no mixture {name!r}; there are: {', '.join(packaged)}", "or give a YAML file")
    return Path(name)


def parts_of(mixture: Path, stage: str, folder: Path) -> tuple[list[Part], list[str]]:
    """The parts of one stage whose manifests are in a folder (``NAME.json`` or ``NAME.jsonl``), and the other names.

    Raises:
        ManifestError: for a file of another form, or a stage that it does not name.
    """
    from gama import plain_yaml

    try:
        stages = plain_yaml.read(mixture)
    except plain_yaml.PlainYamlError as error:
        raise ManifestError(f"{mixture}: not YAML: {error}") from None
    if not isinstance(stages, dict) or stage not in stages:
        there = ", ".join(str(name)[:40] for name in list(stages)[:20]) if isinstance(stages, dict) else "nothing"
        raise ManifestError(f"{mixture} names no {stage!r}; there are: {there}")
    if not isinstance(stages[stage], list):
        raise ManifestError(f"{mixture}: {stage} is no list of sets")
    parts, missing = [], []
    for number, entry in enumerate(stages[stage], 1):
        name, repeats, tasks = _entry(entry, f"{mixture}: {stage}, set {number}")
        found = [path for ending in ("json", "jsonl") if (path := folder / f"{name}.{ending}").is_file()]
        if found:
            parts.append(Part(found[0], repeats, tasks))
        else:
            missing.append(name)
    return parts, missing


def _entry(entry: Any, where: str) -> tuple[str, float, tuple[str, ...]]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("set"), str):
        raise ManifestError(f"{where}: 'set' is not a name")
    unknown = sorted(map(str, set(entry) - _KEYS))
    if unknown:
        raise ManifestError(f"{where}: no key {unknown[0]!r}; there are: {', '.join(sorted(_KEYS))}")
    repeats, tasks = entry.get("repeats", 1.0), entry.get("tasks", [])
    if not isinstance(repeats, (int, float)) or isinstance(repeats, bool) or not 0 < repeats <= _MOST:
        raise ManifestError(f"{where}: 'repeats' is {shown(repeats)}, expected more than 0 and up to {_MOST:.0f}")
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ManifestError(f"{where}: 'tasks' is {shown(tasks)}, expected a list of names")
    return entry["set"], float(repeats), tuple(tasks)


def combine(
    parts: Sequence[Part],
    out: Path,
    *,
    seed: int = 0,
    splits: Sequence[str] = (),
    malformed: Malformed | None = None,
) -> list[int]:
    """Write the rows of several manifests in one random order, the same for the same seed.

    The rows wait in a file of their own; in memory is where each begins.

    Args:
        parts: manifests with their repeats.
        out: the manifest written; clips are named from its folder.
        seed: of the order, and of the rows that come once more.
        splits: leave out rows of another ``split``; rows without one are taken.
        malformed: called with what is wrong with each row that is left out; without it such a row is refused.

    Returns:
        Rows taken of each part.

    Raises:
        ManifestError: naming file, row and field of what cannot be used.
        OutputError: where ``out`` cannot be written, or is one of the manifests.
    """
    check_output(out, [part.manifest for part in parts], make_folder=True)
    make_folder(out.parent)
    chance = random.Random(seed)
    taken = [0] * len(parts)
    begins = array("Q")
    place = None if is_special(out) else out.parent
    with write_errors(out), tempfile.TemporaryFile(dir=place) as waiting, writing(out) as writer:
        for index, part in enumerate(parts):
            for record, _ in usable(part.manifest, malformed):
                if not _wanted(record, part, splits):
                    continue
                times = int(part.repeats) + (chance.random() < part.repeats % 1)
                clip = Remap().file(record["audio_id"], part.manifest)
                named = record if clip is None else record | {"audio_id": named_from(clip, out.parent)}
                begins.extend([waiting.tell()] * times)
                waiting.write(json.dumps(named).encode() + b"\n")
                taken[index] += times
        chance.shuffle(begins)
        for begin in begins:
            waiting.seek(begin)
            writer.add(json.loads(waiting.readline()))
    return taken


def _wanted(record: Mapping[str, Any], part: Part, splits: Sequence[str]) -> bool:
    in_split = not splits or record.get("split") in (None, "", *splits)
    return in_split and (not part.tasks or record.get("task") in part.tasks)
