"""Something done around the import of other packages' modules, whoever imports them; nothing until then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Execute = Callable[[Callable[[], None], ModuleType], None]
"""Given what executes a module's code, and the module: does it, and what else is to be done."""


class ImportHook(MetaPathFinder):
    """Finds the modules it watches through the other finders, and has them executed in our way.

    Args:
        watched: name of a module -> how it is executed.
    """

    def __init__(self, watched: Mapping[str, Execute]) -> None:
        self.watched = dict(watched)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.watched:
            return None
        for finder in sys.meta_path:
            spec = None if isinstance(finder, ImportHook) else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = HookedLoader(spec.loader, self.watched[fullname])
                return spec
        return None


class HookedLoader(Loader):
    """Loads a module as its own loader does, but for what :class:`ImportHook` was told."""

    def __init__(self, loader: Loader, execute: Execute) -> None:
        self._loader = loader
        self._execute = execute

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # handed back first: tools that read a module's source ask the loader it names
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._execute(lambda: self._loader.exec_module(module), module)


def watch(name: str, execute: Execute) -> None:
    """Have a module executed by ``execute`` from now on. Safe to call more than once for a module."""
    hook = next((finder for finder in sys.meta_path if isinstance(finder, ImportHook)), None)
    if hook is None:
        hook = ImportHook({})
        sys.meta_path.insert(0, hook)
    hook.watched[name] = execute
