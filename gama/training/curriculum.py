"""Which stages run, in which order, from which parents: everything that is checked before torch is imported."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gama.atomic import check_output_folder
from gama.checkpoints.apart import BASE, lost_base
from gama.checkpoints.bundled import model_folder, names
from gama.errors import RecipeError
from gama.locks import LOCK
from gama.training.recipe import Recipe, check_training, parent_names, read_recipe, read_yaml
from gama.training.recipe_paths import recipe_folder
from gama.training.scene_sets import SceneSet, read_sets, supply

if TYPE_CHECKING:
    from gama.training.metrics import Watch
    from gama.training.validation import Show

RUNS = Path("runs")
DATA = Path("data")
SCRATCH = Path("scratch")
"""Given as the model to start from: random weights of the recipe's ``model``."""
_AUTHORS_BASE = "Llama-2-7b-chat-hf-qformer"
_PREPARE = "made with: gama prepare DATASET DIR --out MANIFEST"
_WORKS_NOW = "what works now: gama train --recipe mini --stage 1"


@dataclass(frozen=True)
class Request:
    """What the user asked for; see ``gama train --help``."""

    recipe: str
    stage: str
    data: tuple[Path, ...] = ()
    output: Path | None = None
    parent: Path | None = None
    overrides: tuple[str, ...] = ()
    resume: bool = False


@dataclass(frozen=True)
class Step:
    """One stage to run.

    Attributes:
        name: ``mini/stage1``.
        file: its YAML file.
        output: where it writes.
        parents: folder for ``audio_tower`` and ``language_model``; empty to start from nothing.
        recipe: what the file says, overridden, with the paths of its manifests.
        makes: sets of scenes that are written first.
        left_out: manifests of the recipe that need recordings which are not there.
        stand_in: the packaged model that takes the place of parents which are not there, or None.
    """

    name: str
    file: Path
    output: Path
    parents: dict[str, Path]
    recipe: Recipe
    makes: tuple[SceneSet, ...] = ()
    left_out: tuple[Path, ...] = ()
    stand_in: str | None = None


def plan(request: Request) -> list[Step]:
    """The stages to run, each with everything it needs present; finished ones are left out with ``resume``.

    Raises:
        RecipeError: naming everything that is missing, and the command that makes it; for a folder that holds a run
            where ``resume`` is not asked for.
    """
    steps = steps_of(request)
    if missing := list(dict.fromkeys(m for step in steps for m in _missing(step, request, steps))):
        count = "1 thing is" if len(missing) == 1 else f"{len(missing)} things are"
        raise RecipeError(f"{count} missing: {'; '.join(missing)}", _WORKS_NOW)
    for step in steps:
        check_output(step.output, request.resume)
    return steps


def steps_of(request: Request) -> list[Step]:
    """The stages that a request names, whether or not what they need is there."""
    files = _files(request)
    whole = len(files) > 1
    name = files[0].resolve().parent.name if _is_file(request) else Path(request.recipe).name
    runs = request.output if request.output and whole else RUNS / name
    if request.output and not whole:
        runs = request.output.parent
    steps: list[Step] = []
    for file in files:
        output = request.output if request.output and not whole else runs / file.stem
        if whole and request.resume and _holds_model(output):
            _require_made_of(output, file, {step.output for step in steps})
            continue
        recipe = read_recipe(file, request.overrides)
        sets = read_sets(file.parent)
        found = supply(sets, () if request.data else recipe.data.manifests, DATA)
        data = dataclasses.replace(recipe.data, manifests=tuple(map(str, request.data or found.manifests)))
        recipe = dataclasses.replace(recipe, data=data)
        parents = _parents(recipe, request, runs, [f.stem for f in files] if whole else [])
        stand_in = None
        if recipe.otherwise and not request.parent and not whole and not all(map(_holds_model, parents.values())):
            stand_in, parents = recipe.otherwise, dict.fromkeys(parents, model_folder(recipe.otherwise))
        step = Step(f"{name}/{file.stem}", file, output, parents, recipe, found.make, found.left_out, stand_in)
        steps.append(step)
    return steps


def _require_made_of(output: Path, file: Path, to_come: set[Path]) -> None:
    """A finished stage began with what the curriculum has made, so none of that is still to come."""
    for name in parent_names(read_yaml(file), file).values():
        if output.parent / name in to_come:
            raise RecipeError(
                f"{output} is finished, but not {output.parent / name}, with which it begins in the curriculum",
                f"move {output} away, or give another --output",
            )


def check_output(output: Path, resume: bool) -> None:
    """Whether a run may write here.

    Raises:
        RecipeError: for a folder that holds a run without ``resume``, or that holds something else.
        OutputError: for a file, or a folder that cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":  # the first process looks for all of a run
        return
    check_output_folder(output)
    if not output.exists():
        return
    # what a run leaves that was killed before it began is no run
    held = sorted(p.name for p in output.iterdir() if p.suffix != ".tmp" and p.name != LOCK)
    if held and not resume:
        raise RecipeError(f"{output} already holds a run", "continue it with --resume, or give another --output")
    if held and "recipe.yaml" not in held:
        raise RecipeError(f"{output} holds no run to continue: recipe.yaml is not there", "give another --output")


def _is_file(request: Request) -> bool:
    path = Path(request.recipe)
    return path.suffix in (".yaml", ".yml") and path.is_file()


def _files(request: Request) -> list[Path]:
    if _is_file(request):
        return [Path(request.recipe)]
    folder = recipe_folder(request.recipe)
    if request.stage == "all":
        return curriculum(folder)
    stem = f"stage{request.stage}" if request.stage.isdigit() else request.stage
    file = folder / f"{stem}.yaml"
    if not file.is_file():
        known = ", ".join(f.stem for f in curriculum(folder))
        raise RecipeError(f"recipe {request.recipe!r} has no stage {request.stage!r}", f"it has: {known}")
    return [file]


def curriculum(folder: Path) -> list[Path]:
    """Every stage of a folder, parents first; a parent that is no stage of the folder orders nothing."""
    raw = {file: read_yaml(file) for file in sorted(folder.glob("*.yaml"))}
    left = {file: set(parent_names(r, file).values()) for file, r in raw.items() if "objective" in r}
    ordered: list[Path] = []
    while left:
        waiting = {file.stem for file in left}
        ready = [file for file, parents in left.items() if not parents & waiting]
        if not ready:
            raise RecipeError(f"{folder}: the stages {', '.join(sorted(waiting))} start from each other")
        ordered += ready
        left = {file: parents for file, parents in left.items() if file not in ready}
    return ordered


def _parents(recipe: Recipe, request: Request, runs: Path, made: Sequence[str]) -> dict[str, Path]:
    """``--from`` stands in for every parent that this command does not make itself."""
    given = request.parent
    if given == SCRATCH and not set(made) & set(recipe.starts_from.values()):
        return {}
    if given is not None and str(given) in names():
        given = model_folder(str(given))
    if given is not None and not made:
        return dict.fromkeys(("audio_tower", "language_model"), given)
    return {
        part: given if given is not None and name not in made else runs / name
        for part, name in recipe.starts_from.items()
    }


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").exists()


def _missing(step: Step, request: Request, steps: Sequence[Step]) -> Iterator[str]:
    made = {other.output for other in steps}
    recipe = Path(request.recipe).parent if _is_file(request) else request.recipe
    for folder in dict.fromkeys(step.parents.values()):
        if folder in made:
            continue
        if _holds_model(folder):
            if lost := lost_base(folder):
                yield f"the language model of {folder}: {lost} (put it back, or name its folder in {folder / BASE})"
        elif folder == request.parent:
            yield f"the model {folder} given by --from (a folder that holds config.json)"
        else:
            yield from _missing_parent(folder, step.file.parent, f"gama train --recipe {recipe} --stage")
    if not step.parents and "text_config" not in step.recipe.model:
        yield f"a model for {step.file.name} to start from (give --from DIR, or the recipe starts_from or model)"
    manifests = [Path(m) for m in step.recipe.data.manifests]
    if not manifests and step.recipe.objective != "text":
        yield f"data for {step.file.name} (give --data MANIFEST, {_PREPARE})"
    soon = {DATA / scene_set.name for scene_set in step.makes}
    for manifest in manifests:
        if not manifest.is_file() and manifest.parent not in soon:
            made_by = "" if request.data else f" (make it with: {_preparation(manifest, step.file.parent)})"
            yield f"the manifest {manifest}{made_by}"


def _missing_parent(folder: Path, recipe: Path, command: str) -> Iterator[str]:
    """A parent that is not there, and what it begins with in turn."""
    file = recipe / f"{folder.name}.yaml"
    if not file.is_file():
        yield f"the parent {folder} (no stage of the recipe: give a model's folder with --from DIR, {_start(folder)})"
        return
    yield f"the parent {folder} (make it with: {command} {folder.name.removeprefix('stage')})"
    for name in parent_names(read_yaml(file), file).values():
        if not _holds_model(folder.parent / name):
            yield from _missing_parent(folder.parent / name, recipe, command)


def _start(folder: Path) -> str:
    """What makes the model that the authors' first stage began with."""
    pull = f"gama pull llama-2-7b-chat-qformer --to {folder.parent}"
    convert = f"gama convert --base {folder.parent / _AUTHORS_BASE} --stage1 -o {folder}"
    form = " --aggregator paper" if folder.parent.name == "paper" else ""
    return f"or make it with: {pull}; {convert}{form}"


def _preparation(manifest: Path, recipe: Path) -> str:
    folder = manifest.parent
    if mixture := read_sets(recipe).mixture:
        stage = manifest.stem.removeprefix("stage")
        return f"gama prepare combine --mixture {mixture} --stage {stage} --folder DIR --out {manifest}"
    if folder.name == "real":
        return f"gama prepare real --audio-root DIR --out {folder}"
    return f"gama prepare scenes --count 5000 --out {folder}"


def checked(steps: Sequence[Step]) -> list[Step]:
    """The steps with their training arguments checked, before the first of them runs (imports transformers)."""
    from gama.training.integrations import require_packages

    for step in steps:
        require_packages(step.recipe)  # before the scenes of any stage are written
    return [dataclasses.replace(step, recipe=check_training(step.recipe)) for step in steps]


def train_stage(
    step: Step,
    request: Request,
    *,
    watch: Watch | None = None,
    show: Show | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> None:
    """Run one stage; see :func:`gama.training.trainer.run`."""
    from gama.quiet import quiet_loading
    from gama.training.trainer import run

    features = step.output.parent / "features"
    with quiet_loading(progress=False):
        run(step.recipe, step.output, step.parents, features, resume=request.resume, watch=watch, show=show, note=note)
