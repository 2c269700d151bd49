"""``gama ask`` in a fresh process: an answer without torch, and one line where torch is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "dog_then_bells.flac")

# what the default install lacks cannot be imported; what was imported is told on the last line of stderr
_START = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
sys.argv = ["gama", *{words!r}]
from gama_cli.main import main
try:
    main()
finally:
    print(*sorted(n for n in ("torch", "transformers", "peft", "rich", "onnx") if sys.modules.get(n)), file=sys.stderr)
"""
_MISSING = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors", "onnx", "onnxscript")


def started(*words: str, missing: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    script = _START.format(missing=missing, words=words)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)


def test_an_answer_imports_no_torch() -> None:
    done = started("ask", EXAMPLE, "what happened?")
    assert (done.returncode, done.stderr) == (0, "\n")
    assert done.stdout.strip() == started("ask", EXAMPLE, "what happened?", missing=_MISSING).stdout.strip() != ""


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (("ask", EXAMPLE, "hm?", "--quant", "8bit"), "torch", "torch"),
        (("ask", EXAMPLE, "hm?", "--runtime", "torch"), "torch", "torch"),
        (("export",), "torch", "torch"),
    ],
)
def test_what_needs_torch_says_so_in_one_line(words: tuple[str, ...], package: str, extra: str) -> None:
    done = started(*words, missing=_MISSING)
    assert (done.returncode, done.stdout) == (1, "")
    line = f"error: this needs the package {package}, which is not installed (pip install 'gama-audio[{extra}]')"
    assert done.stderr.splitlines()[0] == line and len(done.stderr.splitlines()) == 2


def test_the_python_interface_says_it_too() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None); import gama\n"
        "print(gama.load().ask(None, 'what is rain?', max_new_tokens=3))\n"
        "for need in (lambda: gama.load(dtype='bfloat16'), lambda: gama.GamaForConditionalGeneration):\n"
        "    try:\n        need()\n"
        "    except gama.GamaError as error:\n        print(type(error).__name__, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines()[1:] == ["MissingPackageError pip install 'gama-audio[torch]'"] * 2
