"""The errors a user can cause: what was given, what was expected, what to do."""

from __future__ import annotations


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


class AudioError(GamaError):
    """A clip that cannot be read as sound."""


class PromptError(GamaError):
    """A question, template or conversation that cannot become a prompt."""


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
