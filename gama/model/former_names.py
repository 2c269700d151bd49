"""Names of arguments that were in use before: read as what they are called now, with a note."""

from __future__ import annotations

from transformers.utils import logging

FORMER_NAMES = {"audio_values": "input_features", "encoder_config": "audio_config"}
"""Names that were in use before, and what they are now."""

logger = logging.get_logger(__name__)


def note_former_name(name: str) -> None:
    """Say once that a name is deprecated.

    By the log, as transformers does for its processors: a warning of Python's would stop whoever turns warnings into
    errors, at an argument that still works.
    """
    logger.warning_once(f"{name!r} is called {FORMER_NAMES[name]!r} now; the old name will go in a later version.")
