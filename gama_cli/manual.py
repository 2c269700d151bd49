"""``docs/cli.md`` out of the commands themselves: ``python -m gama_cli.manual > docs/cli.md``."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

import click

from gama_cli.commands import SECTIONS, cli

_HEAD = """\
# The command line

Made of the commands by `python -m gama_cli.manual > docs/cli.md`; do not edit it by hand.
Every command shows its own part with `--help` (`-h`).
"""

_TAIL = """\
## Streams

Answers and tables go to stdout, everything else to stderr. With `--json` stdout holds one JSON object a line.

## Exit status

| status | meaning |
|---|---|
| 0 | everything was done |
| 1 | something could not be done: the message says what; of several clips, at least one failed |
| 2 | the command line makes no sense |
| 130 | Ctrl-C |
| 143 | SIGTERM, which ends a command as orderly as Ctrl-C does |

## Environment

| variable | meaning |
|---|---|
| `GAMA_MODEL` | the model where `--model` does not name one |
| `GAMA_HOME` | folder of settings, history, recordings and fetched models (else `~/.config/gama`, `~/.cache/gama`) |
| `GAMA_DEBUG` | `1` shows the traceback of an error, as `--debug` does |
| `NO_COLOR` | anything: no colours |

## Files

| file | meaning |
|---|---|
| `GAMA_HOME/config.toml` | defaults of options: `gama config` |
| `GAMA_HOME/history` | lines typed in `gama chat` |
| `GAMA_HOME/recordings/` | clips of `/record` |
"""


def manual() -> str:
    """The whole page, Markdown."""
    parts = [_HEAD, _page(cli, "gama", 2)]
    with click.Context(cli, info_name="gama") as ctx:
        for title, section in SECTIONS.items():
            parts.append(f"## {title}\n")
            for name in section:
                command = cli.get_command(ctx, name)
                assert command is not None
                parts += _pages(command, f"gama {name}", 3)
    return "\n".join([*parts, _TAIL])


def _pages(command: click.Command, path: str, level: int) -> Iterator[str]:
    yield _page(command, path, level)
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=path)
        for name in command.list_commands(ctx):  # commands alone would miss those that are imported when they run
            child = command.get_command(ctx, name)
            if child is not None and not child.hidden:
                yield from _pages(child, f"{path} {name}", level + 1)


def _page(command: click.Command, path: str, level: int) -> str:
    """Name, synopsis, description, options."""
    # with the group's names for help: a command keeps the option that its first context makes
    ctx = click.Context(command, info_name=path, help_option_names=cli.context_settings["help_option_names"])
    synopsis = " ".join([path, *command.collect_usage_pieces(ctx)])
    lines = [f"{'#' * level} {path}", "", f"    {synopsis}", "", *_description(command.help or "")]
    options = [line for param in command.get_params(ctx) for line in _option(param, ctx)]
    return "\n".join([*lines, *options, *([""] if options else [])])


def _description(text: str) -> Iterator[str]:
    """Paragraphs; what click leaves as it is (after a ``\\b``) as a block."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            title, _, block = paragraph.removeprefix("\b\n").partition("\n")
            yield from (title, "", textwrap.indent(textwrap.dedent(block), "    "), "")
        else:
            yield from (*textwrap.wrap(" ".join(paragraph.split()), 120), "")


def _option(param: click.Parameter, ctx: click.Context) -> Iterator[str]:
    record = param.get_help_record(ctx)
    if record is None or not isinstance(param, click.Option) or "--help" in param.opts:
        return
    names, about = record
    variable = f" [environment: {param.envvar}]" if isinstance(param.envvar, str) else ""
    yield f"- `{names}`: {about}{variable}"


if __name__ == "__main__":
    click.echo(manual(), nl=False)
