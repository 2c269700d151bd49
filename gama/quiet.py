"""What other libraries print while they load and run, kept off a user's terminal unless it tells the user something."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_SETTINGS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "critical",
    "TRANSFORMERS_VERBOSITY": "critical",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}
"""What the libraries read while they are imported, here and in the processes that this one starts."""

_CASTS = logging.getLogger("bitsandbytes.autograd._functions")


def silence_libraries() -> None:
    """Keep warnings, log lines and progress bars of other libraries off stderr, in this process and its children.

    For a program with a terminal of its own, before any of them is imported. A setting that the environment has already
    is left alone.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    logging.lastResort = logging.NullHandler()  # in place of what prints the records of loggers without a handler


@contextmanager
def quiet_loading(*, progress: bool) -> Iterator[None]:
    """Load a model without notes on stderr; the settings of transformers are put back afterwards.

    Args:
        progress: whether progress bars may show.
    """
    from transformers.utils import logging as theirs

    verbosity, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    if bars and not progress:
        theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(verbosity)
        if bars and not progress:
            theirs.enable_progress_bar()


def quiet_casts() -> None:
    """Silence the note that bitsandbytes logs at every 8-bit product: it casts by design. Its other words stay."""
    _CASTS.addFilter(_no_cast)  # a filter is added once only


def _no_cast(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")
