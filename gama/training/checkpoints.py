"""``checkpoint-STEP/``: a name that only a whole checkpoint has.

A checkpoint is written below ``.checkpoint.tmp/`` and renamed when everything is on the disk; older ones go afterwards,
out of sight before the first of their files is deleted. ``files.json`` says how long each file is and what its CRC-32
is, so that a copy that was broken off, or a file that was damaged since, is not taken for whole either. A checkpoint
that is not whole is reported and stays where it is.

The frozen language model is not in it: it comes from the parent, whose hash ``lineage.json`` carries.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gama.atomic import move, temporary_files, write_text
from gama.errors import CheckpointError
from gama.training.files import discard, to_disk
from gama.training.lineage import LINEAGE, RECIPE

WEIGHTS = "training.safetensors"
"""Everything but the frozen language model, training heads included."""
PARTIAL = ".checkpoint.tmp"
FINAL = ".final.tmp"
"""Where a finished model is written before its files are moved into place."""
STATE = "trainer_state.json"
_FILES = "files.json"
_COMPARED = (LINEAGE, RECIPE)  # by what they say, when a run goes on
_NAME = re.compile(r"checkpoint-(\d+)")
_SHARED = "_fsdp_wrapped_module."  # in the names of what is shared among processes
_BLOCK = 2**20  # bytes read at once
_LANGUAGE_MODEL = "gama.language_model."


def kept_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a checkpoint holds of a state: all but the weights of the language model that do not learn."""
    learning = {name.replace(_SHARED, "") for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: t for name, t in state.items() if name in learning or not name.startswith(_LANGUAGE_MODEL)}


def write_weights(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Write the weights of a checkpoint."""
    own = {name: t.detach().cpu().clone().contiguous() for name, t in kept_state(model, state).items()}
    save_file(own, folder / WEIGHTS)


def read_weights(model: nn.Module, folder: Path) -> None:
    """Put the weights of a checkpoint into a model whose frozen language model is there already.

    Raises:
        CheckpointError: where one is missing or belongs to another model.
    """
    state = load_file(folder / WEIGHTS)
    expected = kept_state(model, model.state_dict())
    tied = set(model.state_dict()) - set(expected)
    if wrong := (set(expected) - set(state)) | (set(state) - set(expected) - tied):
        raise CheckpointError(f"{folder}: {len(wrong)} weight(s) are missing or too many: {min(wrong)}")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: {' '.join(str(error).split())}") from error


def numbered(output: Path) -> dict[int, Path]:
    """The folders named as checkpoints, by their step, the first one first."""
    found = {int(match[1]): p for p in output.glob("checkpoint-*") if (match := _NAME.fullmatch(p.name))}
    return dict(sorted(found.items()))


def last_checkpoint(output: Path) -> Path | None:
    """The last checkpoint all of whose files are there, by their sizes."""
    return next((path for path in reversed(numbered(output).values()) if is_whole(path)), None)


def resumable(output: Path) -> tuple[Path | None, list[str]]:
    """Where a run goes on.

    Args:
        output: folder of the run.

    Returns:
        The newest checkpoint that is whole, all of its files read and compared; None where the run has none yet. And
        what is wrong with each newer one.

    Raises:
        CheckpointError: where there are checkpoints and none of them is whole.
    """
    wrong: list[str] = []
    for path in reversed(numbered(output).values()):
        fault = damage(path, contents=True)
        if fault is None:
            return path, wrong
        wrong.append(f"{path} is not whole: {fault}")
    if wrong:
        raise CheckpointError(
            f"{'; '.join(wrong)}; {output} holds no whole checkpoint to continue from, and nothing was changed",
            "put back what is missing, or train anew into another --output",
        )
    return None, wrong


def is_whole(checkpoint: Path) -> bool:
    """Whether a save came to its end and no file was cut or taken away since."""
    return damage(checkpoint) is None


def damage(checkpoint: Path, *, contents: bool = False) -> str | None:
    """Why a checkpoint is not whole; None where it is.

    Args:
        checkpoint: its folder.
        contents: whether every file is read and compared with its checksum, and not its size alone.
    """
    try:
        listed = _listed(checkpoint)
        for name, (size, crc) in listed.items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if size is not None and file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes, {size} were written"
            if contents and crc is not None and name not in _COMPARED and _crc32(file) != crc:
                return f"{name} has other contents than were written"
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read: {error.strerror}"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return f"{STATE} or {_FILES} is not JSON of ours"
    return None


def _listed(checkpoint: Path) -> dict[str, tuple[int | None, int | None]]:
    """Size and CRC-32 of every file, where they are known."""
    file = checkpoint / _FILES
    if not file.exists():  # checkpoints of 0.1 have no list; their state was written last
        return {STATE: (None, None), WEIGHTS: (None, None)}
    found: dict[str, tuple[int | None, int | None]] = {STATE: (None, None), WEIGHTS: (None, None)}
    for name, facts in json.loads(file.read_text(encoding="utf-8")).items():
        size, crc = facts if isinstance(facts, list) else (facts, None)  # a list of sizes alone, before 0.2
        found[str(name)] = (int(size), None if crc is None else int(crc))
    return found


def _crc32(file: Path) -> int:
    crc = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def sweep(output: Path, limit: int | None) -> None:
    """Take away the temporary files and folders that a killed run left, and whole checkpoints beyond ``limit``."""
    for path in [output / PARTIAL, output / FINAL, *output.glob(".*.gone.tmp")]:
        if path.is_dir():
            discard(path)
    for file in temporary_files(output):
        file.unlink(missing_ok=True)
    rotate(output, limit)


def finish(output: Path, step: int, limit: int | None) -> None:
    """Give a checkpoint that was written below :data:`PARTIAL` its name, and take the oldest ones away.

    A damaged checkpoint of that name is kept under another one.

    Args:
        output: folder of the run.
        step: number of the checkpoint.
        limit: how many are kept; None for all.
    """
    partial, whole = output / PARTIAL / f"checkpoint-{step}", output / f"checkpoint-{step}"
    files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    facts = {str(file.relative_to(partial)): [file.stat().st_size, _crc32(file)] for file in files}
    write_text(partial / _FILES, json.dumps(facts, indent=1))
    to_disk(partial)
    if whole.exists():
        if is_whole(whole):
            discard(whole)
        else:
            move(whole, _free_name(whole))
    move(partial, whole)
    discard(output / PARTIAL)
    rotate(output, limit)


def _free_name(damaged: Path) -> Path:
    names = (damaged.with_name(f"{damaged.name}.damaged{number or ''}") for number in count())
    return next(name for name in names if not name.exists())


def rotate(output: Path, limit: int | None) -> None:
    """Take the oldest whole checkpoints away, so that ``limit`` of them are left (``save_total_limit``)."""
    whole = [path for path in numbered(output).values() if is_whole(path)]
    for old in [] if limit is None else whole[: -max(1, limit)]:
        discard(old)
