"""gama makes no network call and writes nothing outside its own folders: whole processes are watched.

A shim between the process and the C library (``watch.c``) records every look-up of a name and every internet socket,
and refuses it.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CLIP = Path(__file__).parents[2] / "examples" / "dog_then_bells.flac"
ANSWER = "A dog is barking, then church bells are ringing."
# switches that would hide what gama itself leaves on, and places that would hide what it writes
_LEFT_OUT = ("HF_", "ORT_", "GAMA_", "XDG_", "DO_NOT_TRACK", "TRANSFORMERS_", "DISABLE_TELEMETRY")


@dataclass(frozen=True)
class Watched:
    """What a process did.

    Attributes:
        code: exit status.
        out: stdout.
        error: stderr.
        calls: look-ups and sockets, a line each.
        files: what lies in its HOME, temporary folder and working folder afterwards, relative to their parent; but for
            the empty folder that torch makes among temporary files when it is imported.
    """

    code: int
    out: str
    error: str
    calls: list[str]
    files: list[str]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``watch.c``, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("watching a process needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("shim") / "watch.so"
    source = Path(__file__).with_name("watch.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def watch(shim: Path, tmp_path: Path) -> Callable[..., Watched]:
    """Runs Python with these words in an empty HOME, watched."""

    def run(*words: str, text: str = "", **variables: str) -> Watched:
        places = {name: tmp_path / name for name in ("home", "tmp", "work")}
        for place in places.values():
            place.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
        environment |= {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "OMP_NUM_THREADS": "1"}
        environment |= {"LD_PRELOAD": str(shim), "NETWORK_LOG": str(tmp_path / "calls"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *words]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=300, cwd=places["work"],
            env=environment | variables,
        )  # fmt: skip
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        files = sorted(str(f.relative_to(tmp_path)) for place in places.values() for f in place.rglob("*"))
        files = [file for file in files if file != f"tmp/torchinductor_{getpass.getuser()}"]
        return Watched(done.returncode, done.stdout, done.stderr, calls, files)

    return run


GAMA = ("-m", "gama_cli.main")


def test_the_watch_sees(watch: Callable[..., Watched]) -> None:
    code = (
        "import socket, pathlib\n"
        "for call in (lambda: socket.create_connection(('localhost', 9)), lambda: socket.gethostbyname('localhost'),\n"
        "             lambda: socket.socket(socket.AF_INET6)):\n"
        "    try:\n        call()\n    except OSError:\n        pass\n"
        "pathlib.Path.home().joinpath('id').touch()"
    )
    seen = watch("-c", code)
    assert [call.split()[0].removesuffix("_r") for call in seen.calls] == ["getaddrinfo", "getaddrinfo", "socket"]
    assert seen.files == ["home/id"]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("ask", str(CLIP), "what happened?"), id="ask"),
        pytest.param(("ask", "--runtime", "torch", str(CLIP), "what happened?"), id="ask with torch"),
        pytest.param(("ask", "--quant", "8bit", str(CLIP), "what happened?"), id="ask in 8 bits"),
    ],
)
def test_ask(watch: Callable[..., Watched], words: tuple[str, ...]) -> None:
    seen = watch(*GAMA, *words)
    assert (seen.code, seen.out) == (0, f"{ANSWER}\n"), seen.error
    assert (seen.calls, seen.files) == ([], [])


def test_chat(watch: Callable[..., Watched]) -> None:
    seen = watch(*GAMA, "chat", str(CLIP), text="what happened?\n/stats\n")
    assert (seen.code, seen.out) == (0, f"{ANSWER}\n"), seen.error
    assert (seen.calls, seen.files) == ([], [])


def test_chat_json(watch: Callable[..., Watched]) -> None:
    seen = watch(*GAMA, "chat", "--json", str(CLIP), text='{"do": "ask", "question": "what happened?"}\n')
    assert seen.code == 0 and ANSWER in seen.out, seen.error
    assert (seen.calls, seen.files) == ([], [])


@pytest.mark.parametrize(
    ("words", "file"),
    [
        pytest.param(("onnx", "--part", "fbank"), "fbank.onnx", id="fbank"),
        pytest.param(("onnx",), "prefix.onnx", id="prefix", marks=pytest.mark.slow),
        pytest.param(("merged",), "parity.json", id="merged", marks=pytest.mark.slow),
    ],
)
def test_export(watch: Callable[..., Watched], words: tuple[str, ...], file: str) -> None:
    seen = watch(*GAMA, "export", *words, "--model", "mini", "-o", "out")
    assert seen.code == 0, seen.error
    assert (seen.calls, [f for f in seen.files if not f.startswith("work/out")]) == ([], [])
    assert f"work/out/{file}" in seen.files


def test_onnxruntime_alone(watch: Callable[..., Watched]) -> None:
    """Nothing of it is left on by ``import gama``, in whatever order a program imports what it needs."""
    seen = watch(
        "-c", "import gama, onnxruntime, subprocess, sys; subprocess.run([sys.executable, '-c', 'import onnxruntime'])"
    )
    assert (seen.code, seen.calls, seen.files) == (0, [], [])


def test_a_wish_of_the_user_is_left_alone(watch: Callable[..., Watched]) -> None:
    code = "import os, gama; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    assert watch("-c", code, ORT_DISABLE_TELEMETRY="0").out == "0 1\n"
