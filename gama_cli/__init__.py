"""The command line: one file per command; nothing here touches a tensor."""

from __future__ import annotations

import sys

_OTHER = (
    "gama: error: another package named gama lies in the place of this one{where} (PyPI's gama is AutoML, ours is "
    "gama-audio; both use the name gama: pip uninstall -y gama gama-audio && pip install gama-audio, or give each an "
    "environment of its own)"
)


def _check_package() -> None:
    """Refuse to go on with a package of the same name, whose files pip writes over ours without a word."""
    try:
        import gama
    except ImportError:
        sys.exit(_OTHER.format(where=""))
    if "model_folder" not in getattr(gama, "__all__", ()):
        sys.exit(_OTHER.format(where=f": {getattr(gama, '__file__', None)}"))


_check_package()
