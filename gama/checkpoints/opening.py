"""A path that a person gives — file, folder or zip archive — opened as weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gama.checkpoints.archives import is_archive, unpacked
from gama.checkpoints.json_files import read_table
from gama.checkpoints.reading import PICKLED, Weights, read_shards, read_weights, weight_files
from gama.errors import CheckpointError


@dataclass(frozen=True, eq=False)
class Opened:
    """Weights and the folder they lie in."""

    folder: Path
    weights: Weights


@contextmanager
def opened(path: Path, scratch: Path | None = None) -> Iterator[Opened]:
    """Open a weight file, a folder of shards, or a zip archive that holds one of these.

    Args:
        path: what was given.
        scratch: where an archive is unpacked for the time; the system's place for temporary files where absent.

    Raises:
        CheckpointError: see :func:`gama.checkpoints.reading.read_weights` and :func:`gama.checkpoints.archives.unpack`.
    """
    if not path.exists():
        raise CheckpointError(f"no file or folder {str(path)!r}")
    if is_archive(path):
        with unpacked(path, scratch) as folder:
            yield _inside(folder, path)
        return
    yield _inside(path, path) if path.is_dir() else Opened(path.parent, read_weights(path))


def _inside(folder: Path, given: Path) -> Opened:
    """The weights of a folder, or of the only folder below it that has some."""
    if weight_files(folder):
        return _one(folder)
    below = sorted(p for p in folder.rglob("*") if p.is_dir() and weight_files(p))
    if not below:
        suffixes = ", ".join((".safetensors", *PICKLED))
        raise CheckpointError(f"{given}: holds no weights", f"files ending in {suffixes} are expected")
    if len(below) > 1:
        listed = ", ".join(str(p.relative_to(folder)) for p in below[:5])
        raise CheckpointError(f"{given}: holds weights in {len(below)} folders: {listed}", "give one of them")
    return _one(below[0])


def _one(folder: Path) -> Opened:
    files = weight_files(folder)
    indexed = any(folder.glob("*.index.json"))
    shards = indexed or len(files) == 1 or all("-of-" in file.name for file in files)
    if not shards and files[0].suffix in PICKLED:
        listed = ", ".join(file.name for file in files[:5])
        raise CheckpointError(f"{folder}: holds several weight files: {listed}", "give one of them")
    return Opened(folder, read_shards(folder))


def adapter_alpha(given: Opened) -> float | None:
    """LoRA's alpha as the ``adapter_config.json`` beside an adapter says it; None where there is none.

    Raises:
        CheckpointError: for an adapter that is no plain LoRA.
    """
    file = given.folder / "adapter_config.json"
    if not file.is_file() or not any(path.name.startswith("adapter_model") for path in given.weights.files):
        return None
    config = read_table(file, "an adapter's configuration")
    try:
        kind, alpha = str(config.get("peft_type", "LORA")), float(config["lora_alpha"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{file}: cannot be read as an adapter's configuration: {error}") from error
    odd = [name for name in ("use_rslora", "use_dora", "fan_in_fan_out") if config.get(name)]
    if kind != "LORA" or odd:
        raise CheckpointError(f"{file}: {', '.join(odd) or kind} is no plain LoRA, which alone is known here")
    return alpha
