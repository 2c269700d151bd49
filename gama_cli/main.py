"""Entry point of the ``gama`` script: nothing is imported before Ctrl-C is looked after."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOVED = ("SECTIONS", "CommandEntry", "LazyGroup", "cli")


def main() -> None:
    """Run the command of ``sys.argv``."""
    try:
        from gama import interrupts

        interrupts.run(_run)
    except KeyboardInterrupt:  # before the handlers stood: nothing has been done that could be lost
        import os

        os._exit(130)


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
