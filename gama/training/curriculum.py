"""Which stages run, in which order, from which parents: everything that is checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gama.errors import RecipeError
from gama.training.recipe_paths import recipe_folder

RUNS = Path("runs")
DATA = Path("data")


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
        manifests: rows to train on.
    """

    name: str
    file: Path
    output: Path
    parents: dict[str, Path]
    manifests: tuple[Path, ...]


def plan(request: Request) -> list[Step]:
    """The stages to run, each with everything it needs present.

    Raises:
        RecipeError: naming everything that is missing, and the command that makes it.
    """
    files = _files(request)
    runs = (request.output.parent if request.output and len(files) == 1 else request.output) or RUNS / _short(request)
    steps = []
    for file in files:
        stem = file.stem
        output = request.output if request.output and len(files) == 1 else runs / stem
        if len(files) > 1 and request.resume and (output / "config.json").exists():
            continue
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict):
            raise RecipeError(f"{file}: expected keys and values")
        steps.append(Step(f"{_short(request)}/{stem}", file, output, _parents(raw, request, runs), _data(raw, request)))
    _check(steps, request, [f.stem for f in files])
    return steps


def _short(request: Request) -> str:
    return Path(request.recipe).stem


def _files(request: Request) -> list[Path]:
    path = Path(request.recipe)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return [path]
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
    """Every stage of a folder, parents first."""
    raw = {f: yaml.safe_load(f.read_text(encoding="utf-8")) for f in sorted(folder.glob("*.yaml"))}
    left = {f: _parent_names(r) for f, r in raw.items() if isinstance(r, dict) and "objective" in r}
    ordered: list[Path] = []
    while left:
        done = {f.stem for f in ordered}
        ready = [f for f, parents in left.items() if parents <= done]
        if not ready:
            raise RecipeError(f"{folder}: the stages {', '.join(f.stem for f in left)} start from each other")
        ordered += ready
        left = {f: p for f, p in left.items() if f not in ready}
    return ordered


def _parent_names(raw: dict[str, Any]) -> set[str]:
    parents = raw.get("starts_from") or {}
    return {parents} if isinstance(parents, str) else set(parents.values())


def _parents(raw: dict[str, Any], request: Request, runs: Path) -> dict[str, Path]:
    if request.parent is not None:
        return dict.fromkeys(("audio_tower", "language_model"), request.parent)
    parents = raw.get("starts_from") or {}
    if isinstance(parents, str):
        parents = dict.fromkeys(("audio_tower", "language_model"), parents)
    return {part: runs / name for part, name in parents.items()}


def _data(raw: dict[str, Any], request: Request) -> tuple[Path, ...]:
    if request.data:
        return request.data
    return tuple(DATA / name for name in (raw.get("data") or {}).get("manifests") or ())


def _check(steps: list[Step], request: Request, stems: list[str]) -> None:
    missing: list[str] = []
    made = {step.output for step in steps}
    for step in steps:
        for folder in dict.fromkeys(step.parents.values()):
            if folder not in made and not (folder / "config.json").exists():
                how = f"gama train --recipe {request.recipe} --stage {folder.name.removeprefix('stage')}"
                missing.append(f"the parent {folder} (make it with: {how})")
        for manifest in step.manifests:
            if not manifest.exists():
                name = manifest.parent.name
                how = "gama prepare real --audio-root DIR" if name == "real" else "gama prepare scenes --count 6000 --seed 1"
                missing.append(f"the manifest {manifest} (make it with: {how} --out {manifest.parent})")
    if missing:
        raise RecipeError(
            f"{len(set(missing))} thing(s) are missing: {'; '.join(dict.fromkeys(missing))}",
            "what works now: gama train --recipe mini --stage language",
        )


def train_stage(step: Step, request: Request) -> None:
    """Run one stage."""
    import dataclasses

    from gama.training.recipe import load_recipe
    from gama.training.trainer import run

    recipe = load_recipe(step.file, request.overrides)
    data = dataclasses.replace(recipe.data, manifests=tuple(str(m) for m in step.manifests))
    recipe = dataclasses.replace(recipe, data=data)
    features = step.output.parent / "features"
    run(recipe, step.output, step.parents, features, resume=request.resume)
