"""Start-up stays light, and imports point down: errors → audio, model → data, inference → training → gama_cli."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gama
import gama_cli

HEAVY = {"torch", "transformers", "onnxruntime", "numpy"}

LEVELS = [
    {
        "gama",
        "gama._registration",
        "gama.atomic",
        "gama.bitsandbytes_import",
        "gama.errors",
        "gama.home",
        "gama.import_hooks",
        "gama.interrupts",
        "gama.locks",
        "gama.packages",
        "gama.plain_yaml",
        "gama.processes",
        "gama.quiet",
        "gama.telemetry",
        "gama.text",
        "gama.threads",
    },
    {"gama.audio", "gama.fbank", "gama.products", "gama.prompt", "gama.model"},
    {"gama.checkpoints", "gama.hub", "gama.data", "gama.quantization"},
    {"gama.inference", "gama.instant"},
    {"gama.chat"},
    {"gama.training", "gama.export", "gama.evaluation", "gama.bench", "gama.serving"},
    {"gama_cli"},
]

WITHOUT_TORCH = (
    "gama.errors",
    "gama.text",
    "gama.audio",
    "gama.prompt",
    "gama.hub",
    "gama.data.scenes",
    "gama.instant",
    "gama.chat",
    "gama.bench",
    "gama.home",
    "gama.processes",
    "gama.threads",
    "gama.inference.asking",
    "gama.inference.batches",
    "gama.inference.fleet",
    "gama.inference.launched",
    "gama.inference.memory",
    "gama_cli",
)

ROOTS = [Path(package.__file__).parent for package in (gama, gama_cli)]


def module_name(path: Path) -> str:
    root = next(root for root in ROOTS if path.is_relative_to(root))
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for root in ROOTS for path in sorted(root.rglob("*.py"))}


def stage(module: str) -> str:
    """``gama.model.encoder`` → ``gama.model``: the part of the package that has a level."""
    return "gama_cli" if module.startswith("gama_cli") else ".".join(module.split(".")[:2])


def level(module: str) -> int:
    found = [number for number, stages in enumerate(LEVELS) if stage(module) in stages]
    assert found, f"{stage(module)} has no level: give it one in LEVELS"
    return found[0]


def imports(path: Path) -> set[str]:
    """Every module of ours that a file imports, at its top or inside a function."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            joined = [f"{node.module}.{alias.name}" for alias in node.names]
            named.update(name if name in MODULES else str(node.module) for name in joined)
    return {name for name in named if name.split(".")[0] in ("gama", "gama_cli")}


def loaded_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter after ``code``."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    script = f"try:\n    {code}\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n{report}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import gama", id="import"),
        pytest.param("from gama_cli.main import cli; cli(['--help'])", id="help"),
        pytest.param("from gama_cli.main import cli; cli(['--version'])", id="version"),
    ],
)
def test_start_up_is_light(code: str) -> None:
    loaded = loaded_after(code)
    assert "gama" in loaded
    assert not loaded & HEAVY


def test_commands_load_nothing_heavy_to_show_their_help() -> None:
    names = [name for name in MODULES if name.startswith("gama_cli")]
    assert "gama_cli.main" in names
    assert not loaded_after(f"import {', '.join(names)}") & HEAVY


def test_parts_without_torch() -> None:
    names = [name for name in MODULES if stage(name) in WITHOUT_TORCH or name.startswith(WITHOUT_TORCH)]
    assert {"gama.audio", "gama.prompt", "gama.data.scenes"} <= set(names)
    assert not loaded_after(f"import {', '.join(names)}") & {"torch", "transformers"}


def test_every_command_of_the_table_exists() -> None:
    from gama_cli.main import SECTIONS

    entries = [entry for section in SECTIONS.values() for entry in section.values()]
    assert len(entries) >= 4
    assert [entry.module for entry in entries if entry.module not in MODULES] == []


@pytest.mark.parametrize("module", [name for name in MODULES if name != "gama"])
def test_imports_point_down(module: str) -> None:
    up = {name for name in imports(MODULES[module]) if level(name) > level(module)}
    assert not up, f"{module} (level {level(module)}) imports from above: {', '.join(sorted(up))}"


def test_the_walk_sees_imports() -> None:
    assert "gama.errors" in imports(MODULES["gama_cli.commands"])
    assert len(MODULES) > 20


def test_public_names_are_the_ones_in_the_table() -> None:
    assert set(gama.__all__) == {*gama._HOME_OF, "__version__"}
    assert set(gama.__all__) <= set(dir(gama))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        gama.lod  # noqa: B018
