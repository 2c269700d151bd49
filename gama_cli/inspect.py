"""``gama inspect``: what a checkpoint is, before anything is built of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gama_cli import console

if TYPE_CHECKING:
    from gama.checkpoints.inspection import Inspection


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--verify", is_flag=True, help="Compare every file of a model folder with its recorded hash.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(path: Path, verify: bool, as_json: bool) -> None:
    """Say what PATH is: a checkpoint's file, a folder, or a zip archive.

    Keys and shapes alone tell, and no code in the file runs: a pickle that holds more than
    weights is refused. Dead weights are those that can change no output of the released model.

    --verify reads every file that gama_files.json lists, which gama writes into the folders it
    makes: a changed, cut or missing file is an error.

    \b
    Examples:
      gama inspect pytorch_model.bin
      gama inspect stage5.zip --json
      gama inspect Llama-2-7b-chat-hf-qformer
      gama inspect gama-7b --verify
    """
    if verify:
        _verify(path, as_json)
        return
    from gama.checkpoints.inspection import inspect as look

    found = look(path)
    if as_json:
        from dataclasses import asdict

        console.json_line({**asdict(found), "tensors": found.tensors, "parameters": found.parameters})
        return
    click.echo(f"{found.path}: {found.title}")
    click.echo(f"{_bytes(sum(found.files.values()))} in {', '.join(found.files)}\n")
    click.echo(_table(found))
    for line in _remarks(found):
        click.echo(line)


def _verify(path: Path, as_json: bool) -> None:
    from gama.checkpoints.file_hashes import verify
    from gama_cli.convert import in_megabytes

    with console.progress(None, "MB compared") as advance:
        verified = verify(path, in_megabytes(advance))
    if as_json:
        console.json_line({"path": str(path), "verified": list(verified.files), "unlisted": list(verified.unlisted)})
        return
    click.echo(f"{path}: {len(verified.files)} files are as they were written")
    if verified.unlisted:
        click.echo(f"not listed, so not compared: {', '.join(verified.unlisted)}")


def _table(found: Inspection) -> str:
    rows = [
        (c.name, f"{c.tensors:,}", f"{c.parameters:,}", " ".join(c.dtypes), _dead(c.dead_tensors, c.dead_parameters))
        for c in found.components
    ]
    dead = _dead(sum(found.dead.values()), sum(c.dead_parameters for c in found.components))
    rows.append(("in all", f"{found.tensors:,}", f"{found.parameters:,}", "", dead))
    return console.table(["part", "tensors", "parameters", "dtypes", "dead"], rows)


def _dead(tensors: int, parameters: int) -> str:
    return f"{tensors:,} tensors, {parameters:,} parameters" if tensors else ""


def _remarks(found: Inspection) -> list[str]:
    lines = [""]
    if found.facts:
        lines.append("sizes: " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in found.facts.items() if v))
    lines += [f"dead: {count} tensors, {reason}" for reason, count in found.dead.items()]
    if found.beside:
        lines.append(f"left unread: {', '.join(found.beside)}")
    if found.unknown:
        more = f" and {len(found.unknown) - 5} more" if len(found.unknown) > 5 else ""
        lines.append(f"unknown: {', '.join(found.unknown[:5])}{more}")
    if found.missing:
        lines.append(f"missing for a whole model: {', '.join(found.missing)}")
    elif found.kind in ("gama", "ltu", "ours"):
        lines.append("missing for a whole model: nothing")
    return lines if len(lines) > 1 else []


def _bytes(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
