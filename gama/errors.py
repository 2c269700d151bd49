"""The errors a user can cause: what was given, what was expected, what to do."""

from __future__ import annotations

import os


class GamaError(Exception):
    """An error with a message for the person who caused it.

    Args:
        message: what was given and what was expected, in one sentence without a full stop.
        hint: what to do next, as one sentence or command.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class AudioError(GamaError, ValueError):
    """A clip that cannot be read as sound."""


class PromptError(GamaError, ValueError):
    """A question, template or conversation that cannot become a prompt."""


class OptionError(PromptError, TypeError):
    """A keyword argument that a method does not have, or an argument of another type than it takes."""


class CheckpointError(GamaError):
    """Weights whose keys, shapes or files do not fit the model."""


class ManifestError(GamaError):
    """A manifest row that cannot be used; names file, row and field."""


class RecipeError(GamaError):
    """A recipe with unknown keys, wrong values or missing parents."""


class MissingPackageError(GamaError):
    """An optional package that the request needs and that is not installed."""


class DeviceError(GamaError):
    """A device or precision that this machine does not have."""


class OutputError(GamaError):
    """A file or folder that cannot be written, or must not be; names it."""


class LockedError(GamaError):
    """Something that another process is writing; names both."""


_DEBUG_HINT = "run again with --debug to see where"


def row_error(error: Exception, subject: str, kind: type[GamaError] = GamaError) -> GamaError:
    """What went wrong with one clip or row of many, as an error of that clip or row.

    This is the one place where an unexpected exception (a decoder's ``IndexError``, a read that fails) becomes the
    error of its row, so that the other rows are done. An error for users is returned as it is. With ``--debug``
    (``GAMA_DEBUG=1``) the traceback of an unexpected one is printed, in whichever process it happened.

    Args:
        error: the exception.
        subject: the clip or row that it happened to.
        kind: class of the returned error.

    Returns:
        An error that names the subject, the exception's type and its message, with the exception as its cause.
    """
    if isinstance(error, GamaError):
        return error
    if os.environ.get("GAMA_DEBUG", "0") not in ("", "0"):
        import sys
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, OSError) and error.strerror:
        found = kind(f"{subject}: {error.strerror}")
    else:
        text = " ".join(str(error).split())
        found = kind(f"{subject}: {type(error).__name__}{f': {text}' if text else ''}", _DEBUG_HINT)
    found.__cause__ = error
    return found
