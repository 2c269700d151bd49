"""Names of models and the folders they stand for; gama-mini ships in the package. No torch."""

from __future__ import annotations

from pathlib import Path

from gama.errors import CheckpointError

DEFAULT = "mini"
_ASSETS = Path(__file__).resolve().parents[1] / "assets"


def model_folder(name_or_dir: str | Path | None = None) -> Path:
    """The folder of a model given by name or path; None for the packaged one.

    A packaged model's bare name is that model whatever lies in the working directory; ``./mini`` is a path. What is
    no path may be the name of a model that ``gama pull`` has fetched.

    Raises:
        CheckpointError: when there is no such model, or the folder holds none.
    """
    if name_or_dir is None:
        return _ASSETS / DEFAULT
    name = str(name_or_dir)
    if name in names():
        return _ASSETS / name
    folder = Path(name)
    if not folder.exists():
        from gama.hub.local import fetched_folder

        fetched = fetched_folder(name)
        if fetched is None:
            raise CheckpointError(
                f"no model {name!r}: neither a folder nor a known name",
                f"known: {', '.join(names())}, or give a folder",
            )
        return fetched
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{name!r} holds no model: config.json is missing",
            "give a folder written by save_pretrained or gama train",
        )
    return folder


def names() -> list[str]:
    """The packaged models."""
    return sorted(p.name for p in _ASSETS.iterdir() if (p / "config.json").is_file()) if _ASSETS.is_dir() else []
