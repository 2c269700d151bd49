"""``gama recipes``: the recipes in the package."""

from __future__ import annotations

from pathlib import Path

import click

from gama.atomic import check_output_folder, make_folder, write_errors
from gama_cli import console
from gama_cli.options import json_option


@click.group()
def recipes() -> None:
    """List, show or copy the packaged recipes.

    \b
    Examples:
      gama recipes list
      gama recipes show mini --stage 1
      gama recipes copy mini my-recipe
    """


@recipes.command("list")
@json_option
def list_recipes(as_json: bool) -> None:
    """List the packaged recipes."""
    from gama.training.recipe_paths import recipe_folder, recipe_names, stage_files

    rows = []
    for name in recipe_names():
        stages = stage_files(recipe_folder(name))
        rows.append({"name": name, "stages": [path.stem for path in stages], "summary": _summary(stages[0])})
    if as_json:
        for row in rows:
            console.json_line(row)
        return
    click.echo(
        console.table(("NAME", "STAGES", "SUMMARY"), [(r["name"], len(r["stages"]), r["summary"]) for r in rows])
    )


@recipes.command("show")
@click.argument("name")
@click.option("--stage", type=click.IntRange(min=1), metavar="N", help="Show this stage only.")
def show(name: str, stage: int | None) -> None:
    """Print recipe NAME as YAML, one document a stage."""
    from gama.errors import RecipeError
    from gama.training.recipe_paths import recipe_files, recipe_folder

    files = recipe_files(recipe_folder(name))
    if stage is not None:
        wanted = [path for path in files if path.stem == f"stage{stage}"]
        if not wanted:
            raise RecipeError(f"recipe {name!r} has no stage {stage}", f"it has {', '.join(p.stem for p in files)}")
        files = wanted
    documents = (path.read_text(encoding="utf-8").rstrip() for path in files)
    click.echo("\n---\n".join(documents))


@recipes.command("copy")
@click.argument("name")
@click.argument("dest", type=click.Path(file_okay=False, path_type=Path))
def copy(name: str, dest: Path) -> None:
    """Copy recipe NAME into the folder DEST.

    The copy is yours to change. Nothing is overwritten.
    """
    from gama.errors import RecipeError
    from gama.training.recipe_paths import recipe_files, recipe_folder

    files = recipe_files(recipe_folder(name))
    check_output_folder(dest)
    present = [path.name for path in files if (dest / path.name).exists()]
    if present:
        raise RecipeError(f"{str(dest)!r} already holds {', '.join(present)}", "give a folder that does not")
    make_folder(dest)
    copied: list[Path] = []
    try:
        for path in files:
            target = dest / path.name
            # mode x: a file that appeared in the meantime is not overwritten either
            with write_errors(target), target.open("xb") as file:
                copied.append(target)
                file.write(path.read_bytes())
    except BaseException:
        for target in copied:
            target.unlink()
        raise
    console.note(f"copied {len(files)} files to {dest}; run them with: gama train --recipe {dest} --stage 1")


def _summary(stage: Path) -> str:
    """The first words of the comment at the head of a stage file; empty when there is none."""
    with stage.open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") and line.strip("# \n"):
                return line.strip("# \n")
            if line.strip() and not line.startswith("#"):
                break
    return ""
