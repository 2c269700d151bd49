"""How a run ends where the machine fails it: one clear sentence."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from gama.errors import GamaError, OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HINT = "make room on the disk and continue with --resume"
_NUMBER = re.compile(r"os error (\d+)")
_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")


@contextmanager
def clear_ends(output: Path) -> Iterator[None]:
    """Say what a full disk or a clip that was gone has done to a run.

    Args:
        output: folder of the run.

    Raises:
        GamaError: in place of the system's own error.
    """
    try:
        yield
    except OutputError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _FULL:
            raise
        raise GamaError(f"{error.message}; what was written before is kept", _HINT) from error
    except GamaError as error:
        if not _WORKER.match(error.message):
            raise
        # a worker's error arrives with its whole traceback as the message
        raise type(error)(error.message.strip().splitlines()[-1].partition(": ")[2]) from error
    except (OSError, SafetensorError) as error:
        if _number(error) not in _FULL:
            raise
        raise GamaError(
            f"{output}: {' '.join(str(error).split())}; what was written before is kept",
            _HINT,
        ) from error


def _number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None
