"""``gama models``: what lies on this disk, and taking it away."""

from __future__ import annotations

import click

from gama_cli import console
from gama_cli.options import json_option


@click.group()
def models() -> None:
    """List the models on this disk, or remove one.

    \b
    Examples:
      gama models list
      gama models list --known
      gama models rm gama-stage4
    """


@models.command("list")
@click.option("--known", is_flag=True, help="The named models that gama pull can fetch, instead.")
@json_option
def list_models(known: bool, as_json: bool) -> None:
    """List the models on this disk with their sizes: the package's, gama's folder, the hub's cache."""
    from gama.hub.cache import kept
    from gama.hub.disk import human
    from gama.hub.table import load_table

    table = load_table()
    if known:
        _list_known(as_json)
        return
    rows = kept(table)
    if as_json:
        for row in rows:
            facts = {"name": row.name, "where": row.where, "size": row.size, "whole": row.whole, "path": str(row.path)}
            console.json_line(facts)
        return
    cells = [(r.name, r.where, human(r.size) + ("" if r.whole else " (cut short)"), r.path) for r in rows]
    click.echo(console.table(("NAME", "WHERE", "SIZE", "PATH"), cells))


def _list_known(as_json: bool) -> None:
    from gama.hub.disk import human
    from gama.hub.table import load_table

    entries = load_table().values()
    if as_json:
        for e in entries:
            facts = {"name": e.name, "summary": e.summary, "size": e.size, "license": e.license, "gated": e.gated}
            console.json_line({**facts, "source": e.source})
        return
    cells = [(e.name, human(e.size), e.license, e.summary) for e in entries]
    click.echo(console.table(("NAME", "SIZE", "LICENCE", "SUMMARY"), cells))


@models.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove_models(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove models from this disk, after asking."""
    from gama.hub.cache import kept_named, remove
    from gama.hub.disk import human
    from gama.hub.table import load_table

    table = load_table()
    rows = [row for name in dict.fromkeys(names) for row in kept_named(name, table)]
    for row in rows:
        console.note(f"{row.name}: {human(row.size)} in {row.path}")
    if not yes and not click.confirm(f"remove {human(sum(row.size for row in rows))}?", err=True):
        console.note("nothing was removed")
        return
    for row in rows:
        remove(row)
        if as_json:
            console.json_line({"removed": row.name, "size": row.size, "path": str(row.path)})
    console.note(f"removed {human(sum(row.size for row in rows))}")
