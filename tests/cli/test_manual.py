"""``docs/cli.md`` is what the commands say, and the commands agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gama_cli.main import SECTIONS, cli
from gama_cli.manual import manual

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its path, groups too."""

    def below(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            ctx = click.Context(command, info_name=path)
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                if not child.hidden:
                    yield from below(child, f"{path} {name}")

    with click.Context(cli, info_name="gama") as ctx:
        for section in SECTIONS.values():
            for name in section:
                command = cli.get_command(ctx, name)
                assert command is not None
                yield from below(command, name)


COMMANDS = dict(commands())


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual(), "python -m gama_cli.manual > docs/cli.md"


def test_every_command_and_option_is_on_the_page() -> None:
    page = manual()
    for path, command in COMMANDS.items():
        assert f"# gama {path}\n" in page
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert f"`{param.opts[0]}" in page, (path, param.opts)


@pytest.mark.parametrize("path", [path for path in COMMANDS if " " not in path])
def test_every_command_shows_examples(path: str) -> None:
    text = COMMANDS[path].help or ""
    assert f"\n      gama {path}" in text or f" gama {path} " in text or f"(gama {path} " in text


@pytest.mark.parametrize("path", list(COMMANDS))
def test_every_option_has_help(path: str) -> None:
    for param in COMMANDS[path].params:
        assert not isinstance(param, click.Option) or param.help, param.opts


def test_an_option_means_the_same_everywhere() -> None:
    """Options by the same name are of one type; --model reads GAMA_MODEL, --json is a flag."""
    for path, command in COMMANDS.items():
        for param in command.params:
            if not isinstance(param, click.Option):
                continue
            if "--json" in param.opts:
                assert param.is_flag, path
            if "--model" in param.opts and not param.required:
                assert param.envvar == "GAMA_MODEL", path
            if "--seed" in param.opts:
                assert isinstance(param.type, click.types.IntParamType), path
            for name in ("--out", "--output"):
                if name in param.opts:
                    assert isinstance(param.type, click.Path), path


def test_the_first_line_of_help_is_one_sentence() -> None:
    for path, command in COMMANDS.items():
        first = (command.help or "").strip().split("\n\n")[0]
        assert first and first.rstrip()[-1] in ".:", path
