"""The folder in which gama keeps what belongs to a person: settings, history, recordings."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """``$GAMA_HOME``, else ``gama`` in ``XDG_CONFIG_HOME`` or ~/.config. It need not exist."""
    given = os.environ.get("GAMA_HOME")
    if given:
        return Path(given).expanduser()
    settings = os.environ.get("XDG_CONFIG_HOME")
    return (Path(settings) if settings else Path.home() / ".config") / "gama"


__all__ = ["home"]
