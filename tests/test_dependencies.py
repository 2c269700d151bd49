"""The ranges of pyproject.toml admit what the tests have seen, and nothing else.

``constraints/newest.txt`` records the releases of the last green ``make newest``, ``constraints/lowest.txt`` those that
``make lowest`` installs, ``constraints.txt`` the set that the README's second command installs.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13")

MINOR = {"transformers"}
"""Packages that change their interface between minor releases."""

UNTRIED = {"torchaudio", "optimum", "gptqmodel"}
"""Built for CUDA, or of use beside such a build only: no run on a CPU sees them. Their extras say so."""


def requirements() -> dict[str, Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in parsed if r.name != PROJECT["name"]}


def pinned(file: str, python: str = "3.11") -> dict[str, Version]:
    """Package -> version in a constraints file, as a Linux machine with that Python reads it."""
    found = {}
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    environment |= {"platform_machine": "x86_64", "platform_system": "Linux"}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition("==")
        version, _, marker = rest.partition(";")
        if version and not line.startswith("#") and (not marker or Marker(marker.strip()).evaluate(environment)):
            found[canonicalize_name(name.strip())] = Version(version.strip())
    return found


def bounds(requirement: Requirement) -> dict[str, Version]:
    return {s.operator: Version(s.version) for s in requirement.specifier}


REQUIREMENTS = requirements()
TRIED = {name: r for name, r in REQUIREMENTS.items() if name not in UNTRIED}


def first_untried(name: str, newest: Version) -> Version:
    return Version(f"{newest.major}.{newest.minor + 1}" if name in MINOR else f"{newest.major + 1}")


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_range_has_two_ends(name: str) -> None:
    assert set(bounds(REQUIREMENTS[name])) == {">=", "<"}


@pytest.mark.parametrize("name", TRIED)
def test_a_range_ends_before_what_the_newest_run_has_not_seen(name: str) -> None:
    newest = pinned("constraints/newest.txt")[name]
    assert newest in TRIED[name].specifier
    assert bounds(TRIED[name])["<"] == first_untried(name, newest), "run `make newest`, then move the end of the range"


@pytest.mark.parametrize("name", TRIED)
def test_a_range_begins_with_what_the_lowest_run_installs(name: str) -> None:
    assert pinned("constraints/lowest.txt")[name] == bounds(TRIED[name])[">="]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", TRIED)
def test_the_locked_set_lies_in_the_ranges(name: str, python: str) -> None:
    assert pinned("constraints.txt", python)[name] in TRIED[name].specifier


def test_the_ends_follow_the_rule() -> None:
    assert first_untried("transformers", Version("5.24.1")) == Version("5.25")
    assert first_untried("peft", Version("0.21.2")) == Version("1")


def test_every_python_of_the_lock_is_declared() -> None:
    declared = {c.rsplit(" ", 1)[-1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert declared == set(PYTHONS)


def test_the_readme_installs_the_locked_set() -> None:
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```bash\n", 1)[1].split("```", 1)[0]
    first, second = block.splitlines()[:2]
    assert "constraints" not in first
    assert "-c constraints.txt" in second and second.endswith("&& pytest")
