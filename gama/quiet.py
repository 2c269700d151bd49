"""What other libraries print while they load, kept off a user's terminal unless it tells the user something."""

from __future__ import annotations

import sys
import warnings


def quiet_loading() -> None:
    """No progress bars where stderr is no terminal, no notes about casts that bitsandbytes makes by design."""
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
