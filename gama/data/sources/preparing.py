"""A data set's folder becomes a manifest."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.atomic import check_output
from gama.data.manifest import records, writing
from gama.data.remap import named_from
from gama.data.sources.data_set import DataSet, Example
from gama.errors import GamaError, ManifestError, OutputError

MODULES: dict[str, str] = {
    "audiocaps": "audiocaps",
    "audioset": "audioset",
    "audioset-strong": "audioset_strong",
    "beijing-opera": "beijing_opera",
    "clotho": "clotho",
    "clotho-aqa": "clotho_aqa",
    "compa-r": "compa_r",
    "dcase17": "dcase17",
    "esc10": "esc",
    "esc50": "esc",
    "fsd50k": "fsd50k",
    "gtzan": "gtzan",
    "medley-solos": "medley_solos",
    "musiccaps": "musiccaps",
    "nsynth": "nsynth",
    "tut17": "tut17",
    "vggsound": "vggsound",
    "vocalsound": "vocalsound",
}
"""The file of each data set."""


@dataclass(frozen=True)
class Prepared:
    """What was written.

    Attributes:
        rows, clips: in the manifest.
        missing: clips that the tables name and the folder does not hold.
        first_missing: the first of them.
    """

    rows: int
    clips: int
    missing: int
    first_missing: str


def data_set(name: str) -> DataSet:
    """A data set by its name.

    Raises:
        GamaError: for another name; the message names the nearest.
    """
    if name not in MODULES:
        near = difflib.get_close_matches(name, MODULES, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(MODULES)}"
        raise GamaError(f"no data set {name!r}", known)
    module = importlib.import_module(f"gama.data.sources.{MODULES[name]}")
    found: DataSet = next(each for each in module.DATA_SETS if each.name == name)
    return found


def prepare(name: str, root: Path, out: Path, *, splits: Sequence[str] = ()) -> Prepared:
    """Write the manifest of a data set.

    Args:
        name: of the data set.
        root: its folder.
        out: the manifest.
        splits: those to take, of ``train``, ``val`` and ``test``; none: all.

    Raises:
        ManifestError: for a folder of another shape, or where no clip is there.
        OutputError: where ``out`` cannot be written, or is a file of the data set.
    """
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder", "give the folder of the data set")
    source = data_set(name)
    _check_output(out, root)
    clips: set[Path] = set()
    missing: set[str] = set()
    first = ""
    with writing(out) as writer:
        for example in source.examples(root):
            if splits and example.split not in splits:
                continue
            if example.clip is None:
                first = first or example.name
                missing.add(example.name)
                continue
            clips.add(example.clip)
            for row in _rows(name, example, out):
                writer.add(row)
        if not clips:
            why = f"{len(missing)} clips of its tables, such as {first}" if missing else "a clip"
            raise ManifestError(f"{root} does not hold {why}", "; ".join(source.layout))
    return Prepared(writer.count, len(clips), len(missing), first)


def _check_output(out: Path, root: Path) -> None:
    """Refuse to write over a table or clip of the data set: within its folder, only a manifest is replaced."""
    check_output(out, make_folder=True)
    if out.is_file() and out.resolve().is_relative_to(root.resolve()) and not _is_manifest(out):
        raise OutputError(f"{out}: is a file of the data set, and would be overwritten", "give another file: --out")


def _is_manifest(path: Path) -> bool:
    """Whether the first row of a file is one of a manifest."""
    try:
        first = next(iter(records(path)), None)
    except ManifestError:
        return False
    return isinstance(first, dict) and {"audio_id", "instruction", "dataset"} <= set(first)


def _rows(name: str, example: Example, out: Path) -> Iterator[dict[str, Any]]:
    assert example.clip is not None
    clip = named_from(example.clip, out.parent)
    facts = {"split": example.split, "group": example.group, "fold": example.fold, **example.more}
    known = {key: value for key, value in facts.items() if value not in ("", None)}
    for question, answer in example.questions:
        yield {
            "audio_id": clip,
            "instruction": question,
            "input": "",
            "output": answer,
            "dataset": name,
            "task": example.task,
            **known,
        }
