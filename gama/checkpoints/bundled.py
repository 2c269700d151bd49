"""Names of models and the folders they stand for; gama-mini ships in the package. No torch."""

from __future__ import annotations

from pathlib import Path

from gama.errors import CheckpointError

DEFAULT = "mini"
_ASSETS = Path(__file__).resolve().parents[1] / "assets"


def model_folder(name_or_dir: str | Path | None = None) -> Path:
    """The folder of a model given by name or path; None for the packaged one.

    Raises:
        CheckpointError: when there is no such model, or the folder holds none.
    """
    name = DEFAULT if name_or_dir is None else str(name_or_dir)
    packaged = _ASSETS / name
    if name.isidentifier() and not Path(name).exists() and packaged.is_dir():
        return packaged
    folder = Path(name)
    if not folder.exists():
        raise CheckpointError(
            f"no model {name!r}: neither a folder nor a known name", f"known: {', '.join(names())}, or give a folder"
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{name!r} holds no model: config.json is missing",
            "give a folder written by save_pretrained or gama train",
        )
    return folder


def names() -> list[str]:
    """The packaged models."""
    return sorted(p.name for p in _ASSETS.iterdir() if (p / "config.json").is_file()) if _ASSETS.is_dir() else []
