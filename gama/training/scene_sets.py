"""The data that a recipe makes for itself: sets of scenes, named in ``data.yaml`` beside its stages.

``scenes: {count: 5000, seed: 22}`` is a set of generated scenes; ``recordings: real`` within it mixes in the recordings
of that manifest. ``recordings: [real]`` at the top names the manifests that only a user can supply; without them the
sets and rows that need them are left out, and the run says so. ``mixture: paper`` names what makes its manifests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gama.errors import RecipeError
from gama.text import shown
from gama.training.recipe import fitted, read_yaml
from gama.training.recipe_ranges import MOST

FILE = "data.yaml"
MANIFEST = "manifest.json"
_NAME = re.compile(r"\w[\w.+-]{0,99}")


@dataclass(frozen=True)
class SceneSet:
    """One set of generated scenes.

    Attributes:
        name: of its folder below ``data``.
        count, seed, real_share: see :func:`gama.data.scenes.prepare.write_scenes`.
        recordings: name of the set of recordings mixed in, or None.
    """

    name: str
    count: int
    seed: int = 0
    recordings: str | None = None
    real_share: float = 0.6


@dataclass(frozen=True)
class SceneSets:
    """Everything ``data.yaml`` names; ``mixture`` is that of ``gama prepare combine`` which makes its manifests."""

    made: Mapping[str, SceneSet]
    recordings: tuple[str, ...] = ()
    mixture: str | None = None


@dataclass(frozen=True)
class Supply:
    """What becomes of the manifests of a stage.

    Attributes:
        manifests: those to read.
        make: sets that are written first.
        left_out: manifests that need recordings which are not there.
    """

    manifests: tuple[Path, ...]
    make: tuple[SceneSet, ...]
    left_out: tuple[Path, ...]


def read_sets(folder: Path) -> SceneSets:
    """The sets of the recipe in ``folder``; none where it has no ``data.yaml``.

    Raises:
        RecipeError: for anything that is no set.
    """
    path = folder / FILE
    if not path.is_file():
        return SceneSets({})
    raw = read_yaml(path)
    recordings = fitted(raw.pop("recordings", []), tuple[str, ...], f"{FILE}: recordings")
    mixture = fitted(raw.pop("mixture", None), str | None, f"{FILE}: mixture")
    made = {name: _scene_set(name, given) for name, given in raw.items()}
    for name in (*made, *recordings, *(each.recordings for each in made.values() if each.recordings is not None)):
        if not _NAME.fullmatch(name):
            raise RecipeError(f"{FILE}: {shown(name)} is no name of a folder", "letters, digits, dots, dashes")
    return SceneSets(made, recordings, mixture)


def _scene_set(name: str, given: Any) -> SceneSet:
    kinds = {"count": int, "seed": int, "recordings": str, "real_share": float}
    if not isinstance(given, dict) or "count" not in given or (unknown := set(given) - set(kinds)):
        known = isinstance(given, dict) and "count" in given
        what = f"unknown keys {', '.join(sorted(map(str, unknown)))[:200]}" if known else shown(given)
        raise RecipeError(f"{FILE}: {name[:80]}: {what}; expected count and perhaps {', '.join(list(kinds)[1:])}")
    made = SceneSet(name, **{k: fitted(v, kinds[k], f"{FILE}: {name}.{k}") for k, v in given.items()})
    for key, value, fits, expected in (
        ("count", made.count, 1 <= made.count <= MOST, "1 or more"),
        ("seed", made.seed, 0 <= made.seed <= MOST, "0 or more"),
        ("real_share", made.real_share, 0 <= made.real_share <= 1, "0 to 1"),
    ):
        if not fits:
            raise RecipeError(f"{FILE}: {name}.{key} is {value}, expected {expected}")
    return made


def supply(sets: SceneSets, manifests: Iterable[str], data: Path) -> Supply:
    """Which of a stage's manifests there are, which will be made, and which are left out.

    A manifest that no set names stays as it is: where it is not there, that is for the caller to say.
    """
    kept: list[Path] = []
    make: dict[str, SceneSet] = {}
    left_out: list[Path] = []
    for given in manifests:
        path, name = data / given, Path(given).parent.name
        scene_set = sets.made.get(name)
        needs = name if name in sets.recordings else scene_set.recordings if scene_set else None
        if path.is_file() or (scene_set is None and needs is None):
            kept.append(path)
        elif needs is not None and not (data / needs / MANIFEST).is_file():
            left_out.append(path)
        elif scene_set is not None:
            kept.append(path)
            make[name] = scene_set
    return Supply(tuple(kept), tuple(make.values()), tuple(dict.fromkeys(left_out)))


def write(scene_set: SceneSet, data: Path, progress: Callable[[int], None] | None = None) -> None:
    """Write a set below ``data``; what an interrupted call left is finished, what another process writes waited for."""
    from gama.data.scenes.prepare import write_scenes

    real = data / scene_set.recordings / MANIFEST if scene_set.recordings else None
    write_scenes(
        data / scene_set.name,
        scene_set.count,
        scene_set.seed,
        real=real,
        real_share=scene_set.real_share,
        progress=progress,
        shared=True,
    )
