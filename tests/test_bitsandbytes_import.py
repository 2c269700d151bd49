"""bitsandbytes asks no hub for code, whoever imports it, unless it was allowed to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASKING = """
import sys, types
asked = []
kernels = types.ModuleType("kernels")
kernels.get_kernel = lambda *a, **k: asked.append(a) or types.SimpleNamespace(gemm_4bit_forward=None)
sys.modules["kernels"] = kernels
import gama
import bitsandbytes
from bitsandbytes.functional import has_avx512bf16
assert sys.modules["kernels"] is kernels
print(len(asked), bool(has_avx512bf16()))
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_an_import_by_others_asks_nobody_and_says_nothing() -> None:
    done = run(ASKING)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[0] == "0"


def test_it_asks_where_that_is_allowed() -> None:
    done = run(ASKING, GAMA_ALLOW_HUB_KERNELS="1")
    assert done.returncode == 0, done.stderr
    asked, would = done.stdout.split()
    if would == "False":
        pytest.skip("bitsandbytes asks on processors with AVX512-BF16 only")
    assert asked == "1"


def test_the_option_is_read_by_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    from gama.bitsandbytes_import import ALLOW, hub_kernels_allowed
    from gama_cli.options import hub_kernels_option

    monkeypatch.setenv(ALLOW, "0")
    command = click.command()(hub_kernels_option(lambda: None))
    command.main([], standalone_mode=False)
    assert not hub_kernels_allowed()
    command.main(["--allow-hub-kernels"], standalone_mode=False)
    assert hub_kernels_allowed()


def test_importing_gama_imports_nothing_of_it() -> None:
    done = run("import gama, sys; print([m for m in ('bitsandbytes', 'logging', 'torch') if m in sys.modules])")
    assert done.stdout.strip() == "[]"
