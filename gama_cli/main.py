"""Entry point of the ``gama`` script: nothing is imported before Ctrl-C is looked after."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOVED = ("SECTIONS", "CommandEntry", "LazyGroup", "cli")


_OTHER_PACKAGE = (
    "gama: error: another package named gama lies in the place of this one{where} (PyPI's gama is AutoML, ours is "
    "gama-audio; both use the name gama: pip uninstall -y gama gama-audio && pip install gama-audio, or give each an "
    "environment of its own)"
)


def main() -> None:
    """Run the command of ``sys.argv``."""
    try:
        _check_package()
        from gama import interrupts

        interrupts.run(_run)
    except KeyboardInterrupt:  # before the handlers stood: nothing has been done that could be lost
        import os

        os._exit(130)


def _check_package() -> None:
    """Refuse to go on with a package of the same name, whose files pip writes over ours without a word."""
    import sys

    try:
        import gama
    except ImportError:
        sys.exit(_OTHER_PACKAGE.format(where=""))
    if "model_folder" not in getattr(gama, "__all__", ()):
        sys.exit(_OTHER_PACKAGE.format(where=f": {getattr(gama, '__file__', None)}"))


def _run() -> None:
    import sys

    from gama.quiet import silence_libraries
    from gama_cli.commands import cli, take_debug
    from gama_cli.streams import prepare_streams

    prepare_streams()
    if not take_debug(sys.argv[1:])[1]:
        silence_libraries()
    cli(prog_name="gama")


def __getattr__(name: str) -> Any:
    """The group and its table live in :mod:`gama_cli.commands`, which imports click."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gama_cli import commands

    return getattr(commands, name)


if __name__ == "__main__":
    main()
