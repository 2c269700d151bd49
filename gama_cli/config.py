"""``gama config``: defaults of options, kept in one small file."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from gama.errors import GamaError
from gama.home import home
from gama.text import printable
from gama_cli import console
from gama_cli.options import json_option

_PATIENCE = 10.0  # seconds that another process may take for its change

COMMANDS = {"ask": "ask", "chat": "chat", "eval": "evaluate"}
"""The commands whose defaults the file holds, and what each is called in its module."""

KEYS = (
    *("model", "quant", "device", "dtype", "runtime", "provider"),
    *("preset", "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "template"),
    *("max_duration", "channel", "memory", "picture"),
    *("batch_size", "threads", "cache", "cache_size"),
)
"""Options of those commands that can have a default of one's own."""

_LARGEST = 64 * 1024  # bytes of the file
_MEND = "correct it, or remove it"


def path() -> Path:
    """Where the file is, or would be."""
    return home() / "config.toml"


def read() -> dict[str, Any]:
    """What the file says; empty where there is none.

    Raises:
        GamaError: for a file that is no TOML, or holds what no option takes.
    """
    import tomllib

    file = path()
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise GamaError(f"{file}: is larger than {_LARGEST // 1024} KiB, which no settings are", _MEND)
        values = tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise GamaError(f"{file}: not TOML: it is nested too deep", _MEND) from None
    except ValueError as error:  # TOML's and Unicode's, and those of odd dates and numbers
        raise GamaError(f"{file}: not TOML: {' '.join(str(error).split())[:300]}", _MEND) from None
    return {key: _checked(key, value, str(file)) for key, value in values.items()}


def defaults(command: str | None) -> dict[str, dict[str, Any]]:
    """The defaults of the command that is about to run, as click's ``default_map``.

    Raises:
        GamaError: as :func:`read`.
    """
    return {command: read()} if command in COMMANDS else {}


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def config(ctx: click.Context, as_json: bool) -> None:
    """Show or change the defaults of ask, chat and eval.

    An option on the command line comes first, then the environment (GAMA_MODEL), then this file.

    \b
    Examples:
      gama config
      gama config set model runs/mini/stage5
      gama config set temperature 0.3
      gama config unset model
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@config.command("get")
@click.argument("key", type=click.Choice(KEYS))
def get_value(key: str) -> None:
    """Print the value of KEY; exit with 1 where it has none in the file."""
    values = read()
    if key not in values:
        raise SystemExit(1)
    click.echo(printable(_shown(values[key])))


@config.command("set")
@click.argument("key", type=click.Choice(KEYS))
@click.argument("value")
def set_value(key: str, value: str) -> None:
    """Make VALUE the default of KEY."""
    checked = _checked(key, value, "gama config set")
    with _sole_writer():
        _write([*_without(key), f"{key} = {_toml(checked)}"])


@config.command("unset")
@click.argument("key", type=click.Choice(KEYS))
def unset_value(key: str) -> None:
    """Take the default of KEY away."""
    with _sole_writer():
        _write(_without(key))


@config.command("path")
def show_path() -> None:
    """Print where the file is; GAMA_HOME changes it."""
    click.echo(printable(str(path())))


def _list(as_json: bool) -> None:
    values = read()
    environment = os.environ.get("GAMA_MODEL")
    rows: list[dict[str, Any]] = []
    for key in KEYS:
        if key == "model" and environment:
            rows.append({"key": key, "value": environment, "from": "GAMA_MODEL"})
        elif key in values:
            rows.append({"key": key, "value": values[key], "from": str(path())})
        else:
            rows.append({"key": key, "value": _options()[key].default, "from": "default"})
    for row in rows:
        if row["from"] == "default" and not isinstance(row["value"], (str, int, float, bool)):
            row["value"] = None  # no default
        if as_json:
            console.json_line(row)
    if not as_json:
        click.echo(console.table(("KEY", "VALUE", "FROM"), [(r["key"], _shown(r["value"]), r["from"]) for r in rows]))


def _options() -> dict[str, click.Option]:
    """The option behind each key."""
    found: dict[str, click.Option] = {}
    for name, attribute in COMMANDS.items():
        command: click.Command = getattr(importlib.import_module(f"gama_cli.{name}"), attribute)
        for param in command.params:
            if isinstance(param, click.Option) and param.name in KEYS:
                found.setdefault(param.name, param)
    return found


def _checked(key: str, value: Any, where: str) -> Any:
    """The value as its option reads it."""
    if key not in KEYS:
        raise GamaError(f"{printable(where)}: there is no key {printable(key)!r}", f"there are: {', '.join(KEYS)}")
    if not isinstance(value, (str, int, float, bool)):
        raise GamaError(f"{printable(where)}: {key} is {type(value).__name__}, one value was expected")
    option = _options()[key]
    context = click.Context(click.Command("config"))
    try:
        converted = option.type.convert(value, option, context)
        return option.callback(context, option, converted) if option.callback else converted
    except click.BadParameter as error:
        raise GamaError(f"{printable(where)}: {key}: {error.message.rstrip('.')}") from None


def _without(key: str) -> list[str]:
    """The file's lines but those that set the key; comments stay."""
    file = path()
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line for line in lines if not re.match(rf"\s*[\"']?{key}[\"']?\s*=", line)]


@contextmanager
def _sole_writer() -> Iterator[None]:
    """Let another process finish what it changes, so that no change is lost."""
    from gama.atomic import make_folder
    from gama.locks import locked

    make_folder(path().parent)
    with locked(path(), "these settings", wait=_PATIENCE):
        yield


def _write(lines: list[str]) -> None:
    from gama.atomic import write_text

    write_text(path(), "".join(f"{line}\n" for line in lines), durable=True)


def _toml(value: Any) -> str:
    """A scalar in TOML; its strings are JSON's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
