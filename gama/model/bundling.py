"""Modules of this package -> one file that needs none of it: what a saved folder carries for trust_remote_code."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

PACKAGE = "gama"
ROOTS = ("gama.model.gama", "gama.model.processing", "gama.model.remote")
ELSEWHERE = {("gama.audio", "load"): "gama.model.reading"}
"""What another module stands for: the decoders of gama.audio are many, and want packages of their own."""

_HEAD = '''"""GAMA for transformers: AutoModelForCausalLM and AutoProcessor with trust_remote_code=True.

Written by gama {version} out of its modules; with gama installed (https://pypi.org/project/gama-audio), this file is
not used.
"""

from __future__ import annotations
'''


@dataclass
class _Module:
    """A module, and what its top-level names are called in the file.

    Attributes:
        name: dotted.
        source: as it lies in the package.
        tree: parsed.
        names: own name -> name in the file, for those that differ.
    """

    name: str
    source: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)


@cache
def bundled(version: str) -> str:
    """The file's text."""
    modules: dict[str, _Module] = {}
    for root in ROOTS:
        _collect(root, modules)
    taken = {name: "" for name in dir(builtins)}
    parts = [_HEAD.format(version=version)]
    for module in modules.values():
        _name_apart(module, modules, taken)
        parts.append(f"\n\n# -- {module.name} {'-' * max(0, 111 - len(module.name))}\n\n{_rewritten(module).strip()}\n")
    return "".join(parts)


def _collect(name: str, modules: dict[str, _Module]) -> None:
    """Add a module behind all that it imports."""
    if name in modules:
        return
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"{name} has no source", name=name)
    source = Path(spec.origin).read_text(encoding="utf-8")
    module = _Module(name, source, ast.parse(source))
    for node in module.tree.body:
        if _is_ours(node):
            for alias in node.names:
                _collect(_home(node.module or "", alias.name), modules)
    modules[name] = module


def _is_ours(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE


def _home(module: str, name: str) -> str:
    """The module that defines what is imported from another one, perhaps from a package that hands it on."""
    if (module, name) in ELSEWHERE:
        return ELSEWHERE[module, name]
    spec = find_spec(module)
    if spec is not None and spec.origin is not None and spec.submodule_search_locations:
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            if _is_ours(node) and any((a.asname or a.name) == name for a in node.names):
                return _home(node.module or "", name)
    return module


def _name_apart(module: _Module, modules: dict[str, _Module], taken: dict[str, str]) -> None:
    """Give a module's top-level names others where they are taken by something else."""
    for node in module.tree.body:
        if _is_ours(node):
            for alias in node.names:
                origin = modules[_home(node.module or "", alias.name)]
                module.names[alias.asname or alias.name] = origin.names.get(alias.name, alias.name)
    for name, meaning in _top_level(module):
        if taken.setdefault(name, meaning) != meaning:
            apart = f"{name}_of_{module.name.rpartition('.')[2]}"
            module.names[name] = apart
            taken[apart] = meaning
    renamed = {old for old, new in module.names.items() if old != new}
    for inner in ast.walk(module.tree):
        bound = (
            inner.arg
            if isinstance(inner, ast.arg)
            else getattr(inner, "name", None)
            if isinstance(inner, ast.ExceptHandler)
            else None
        )
        if bound in renamed:
            raise ValueError(f"{module.name}: {bound} is a name of the module and of an argument; rename one")


def _top_level(module: _Module) -> Iterator[tuple[str, str]]:
    """Names that a module binds, each with what it means."""
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, f"{module.name}.{node.name}"
        elif isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_ours(node):
            source = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], f"{source}{alias.name}"
        else:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id, f"{module.name}.{inner.id}"


def _rewritten(module: _Module) -> str:
    """A module's source with its names in the file, and without what is said once for all of it."""
    lines = module.source.splitlines(keepends=True)
    edits: list[tuple[int, int, int, str]] = []  # line, from and to which column, what is written there
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id in module.names:
            edits.append((node.lineno, node.col_offset, node.col_offset + len(node.id), module.names[node.id]))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node in module.tree.body and node.name in module.names:
            keyword = re.match(r"\s*(?:def|class)\s+", lines[node.lineno - 1])
            at = 0 if keyword is None else keyword.end()
            edits.append((node.lineno, at, at + len(node.name), module.names[node.name]))
    for line, begin, end, text in sorted(edits, reverse=True):
        row = lines[line - 1].encode()  # columns count bytes
        lines[line - 1] = (row[:begin] + text.encode() + row[end:]).decode()
    for node in module.tree.body:
        if _is_left_out(node) or _is_renamed(node, module):
            text = "" if _is_left_out(node) else _import(node, module)
            lines[node.lineno - 1 : node.end_lineno] = [text, *[""] * ((node.end_lineno or node.lineno) - node.lineno)]
    return "".join(lines)


def _is_left_out(node: ast.stmt) -> bool:
    future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
    exported = isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    return future or exported or _is_ours(node)


def _is_renamed(node: ast.stmt, module: _Module) -> bool:
    names = node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []
    return any(module.names.get(a.asname or a.name, a.asname or a.name) != (a.asname or a.name) for a in names)


def _import(node: ast.stmt, module: _Module) -> str:
    """An import of another package under the names of the file."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)):
        return ""
    names = [(a.name, module.names.get(a.asname or a.name, a.asname or a.name)) for a in node.names]
    made = [ast.alias(name, None if name == bound else bound) for name, bound in names]
    again = ast.Import(made) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, made, node.level)
    return ast.unparse(again) + "\n"


__all__ = ["bundled"]
