"""``checkpoint-STEP/``: a name that only a whole checkpoint has.

A checkpoint is written below ``.checkpoint.tmp/`` and renamed when everything is on the disk; older ones go afterwards,
out of sight before the first of their files is deleted. ``files.json`` says how long each file is, so that a copy that
was broken off is not taken for whole either.

The frozen language model is not in it: it comes from the parent, whose hash ``lineage.json`` carries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gama.atomic import move, write_text
from gama.errors import CheckpointError
from gama.training.files import discard, to_disk

WEIGHTS = "training.safetensors"
"""Everything but the frozen language model, training heads included."""
PARTIAL = ".checkpoint.tmp"
STATE = "trainer_state.json"
_FILES = "files.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_SHARED = "_fsdp_wrapped_module."  # in the names of what is shared among processes
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
    """The last whole checkpoint."""
    return next((path for path in reversed(numbered(output).values()) if is_whole(path)), None)


def is_whole(checkpoint: Path) -> bool:
    """Whether a save came to its end, and nothing was lost since."""
    listed = checkpoint / _FILES
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        sizes = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {WEIGHTS: None}
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    # checkpoints of 0.1 have no list; their state was written last
    return all(
        (checkpoint / name).is_file() and size in (None, (checkpoint / name).stat().st_size)
        for name, size in sizes.items()
    )


def sweep(output: Path, limit: int | None) -> None:
    """Take away what a killed run left: parts of saves, checkpoints that are not whole, and more than ``limit``."""
    for path in output.glob(".*.tmp"):
        if path.is_dir():
            discard(path)
        else:
            path.unlink()
    for path in numbered(output).values():
        if not is_whole(path):
            discard(path)
    rotate(output, limit)


def finish(output: Path, step: int, limit: int | None) -> None:
    """Give a checkpoint that was written below :data:`PARTIAL` its name, and take the oldest ones away.

    Args:
        output: folder of the run.
        step: number of the checkpoint.
        limit: how many are kept; None for all.
    """
    partial, whole = output / PARTIAL / f"checkpoint-{step}", output / f"checkpoint-{step}"
    sizes = {str(p.relative_to(partial)): p.stat().st_size for p in sorted(partial.rglob("*")) if p.is_file()}
    write_text(partial / _FILES, json.dumps(sizes, indent=1))
    to_disk(partial)
    if whole.exists():
        discard(whole)
    move(partial, whole)
    discard(output / PARTIAL)
    rotate(output, limit)


def rotate(output: Path, limit: int | None) -> None:
    """Take the oldest checkpoints away, so that ``limit`` of them are left."""
    for old in [] if limit is None else list(numbered(output).values())[: -max(1, limit)]:
        discard(old)
