"""``gama completion``: what makes a shell complete commands, options and files."""

from __future__ import annotations

import os
from pathlib import PurePath

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_GAMA_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print the completion script of SHELL (the one in $SHELL by default).

    \b
    Examples:
      source <(gama completion bash)              # in ~/.bashrc
      source <(gama completion zsh)               # in ~/.zshrc, after compinit
      gama completion fish > ~/.config/fish/completions/gama.fish
    """
    from click.shell_completion import get_completion_class

    shell = shell or _own_shell()
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "gama", VARIABLE).source())


def _own_shell() -> str:
    name = PurePath(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"$SHELL is {name!r}; name one of {', '.join(SHELLS)}")
    return name
