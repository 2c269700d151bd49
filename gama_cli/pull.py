"""``gama pull``: fetch a named model, checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama_cli import console
from gama_cli.options import json_option

if TYPE_CHECKING:
    from gama.hub.pull import Pulled
    from gama.hub.table import Entry
    from gama.hub.transfer import Advance


@click.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Put it into this folder.")
@click.option("--sha256", metavar="HASH", help="What a file given by its address has to be.")
@click.option("--table", type=click.Path(path_type=Path), metavar="FILE", help="More named models, in YAML.")
@json_option
def pull(name: str, to: Path | None, sha256: str | None, table: Path | None, as_json: bool) -> None:
    """Fetch model NAME, check it, and print where it lies.

    NAME is a model of the table ("gama models list --known"), a repository of the hub (owner/name), or an https
    address. Run it again after a cut: it goes on where it stopped. HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 takes
    what the cache holds.

    \b
    Examples:
      gama pull gama-stage5
      gama pull llama-2-7b-chat --to Llama-2-7b-chat-hf
      gama pull https://example.org/weights.bin --sha256 4cdb4e… --to weights
    """
    from gama.checkpoints.bundled import model_folder, names
    from gama.hub.pull import pull as fetch
    from gama.hub.table import entry_named, load_table

    if name in names() and to is None:
        console.note(f"{name} is part of the package")
        click.echo(str(model_folder(name)))
        return
    entry = entry_named(name, load_table(table))
    if sha256 is not None:
        entry = _with_hash(entry, sha256)
    _announce(entry)
    _show(entry, fetch(entry, to=to, progress=_bar), as_json)


def _with_hash(entry: Entry, sha256: str) -> Entry:
    if not isinstance(entry.origin, tuple) or len(entry.origin) != 1:
        raise click.UsageError("--sha256 goes with an address of one file")
    if len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef"):
        raise click.BadParameter(f"{sha256!r} is not 64 hexadecimal digits.", param_hint="--sha256")
    return replace(entry, origin=(replace(entry.origin[0], sha256=sha256.lower()),))


def _announce(entry: Entry) -> None:
    from gama.hub.disk import human

    size = "" if entry.size is None else f", about {human(entry.size)}"
    console.note(f"{entry.name}: {entry.summary}{size}")
    console.note(f"licence: {entry.license}")


def _show(entry: Entry, done: Pulled, as_json: bool) -> None:
    from gama.hub.disk import human
    from gama.hub.pull import unchecked

    files = unchecked(done)
    for file in done.files:
        if file.path in files:
            console.warn(
                f"{file.path}: no hash is known, its content could not be checked; its sha256 is {file.sha256}"
            )
    total = human(sum(file.size for file in done.files))
    console.note(f"{len(done.files)} file(s), {total}{'' if files else ', every hash right'}")
    commands = [command.replace("{path}", str(done.path)) for command in entry.next]
    if as_json:
        facts = {"name": done.name, "path": str(done.path), "license": entry.license, "next": commands}
        console.json_line({**facts, "files": [asdict(file) for file in done.files]})
        return
    for command in commands:
        console.note(f"next: {command}")
    click.echo(str(done.path))


@contextmanager
def _bar(name: str, size: int | None) -> Iterator[Advance]:
    """A bar of bytes on a terminal, nothing elsewhere."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(name), total=size)
        yield lambda count: bar.advance(task, count)
