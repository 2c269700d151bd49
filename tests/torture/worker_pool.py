"""Inputs tried in processes of their own: a crash, an endless loop or a flood of memory is counted, and no more.

A worker is a Python process that calls one function for each line of arguments it is given and answers with a verdict.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOOK = 1.0  # seconds between two looks at a worker
_PATIENCE = 20  # times its seconds that a worker which computes nothing is waited for
TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Verdict:
    """What became of one input.

    Attributes:
        index: of the input.
        kind: ``held``, ``internal`` (another exception than GamaError), ``wrong``, ``memory``, ``crash`` or ``slow``.
        text: what was answered or raised.
    """

    index: int
    kind: str
    text: str


@dataclass(frozen=True)
class Result:
    """What became of all inputs.

    Attributes:
        tried: how many inputs.
        held: how many were answered, or refused in words of ours.
        failures: the others.
    """

    tried: int
    held: int
    failures: tuple[Verdict, ...]


def run_isolated(
    function: str,
    arguments: Sequence[Sequence[Any]],
    *,
    processes: int = 2,
    seconds: float = 120.0,
    memory: int = 3 * 2**30,
    environment: dict[str, str] | None = None,
) -> Result:
    """Call a function for each list of arguments, each call in a process that may die of it.

    Args:
        function: ``module:name``; it returns (kind, text).
        arguments: of the calls; JSON.
        processes: at a time.
        seconds: of the processor that a call may take.
        memory: bytes that a process may map beyond what it maps before its first call.
        environment: of the processes, beside this one's.
    """
    local = threading.local()
    workers: list[_Worker] = []

    def call(index: int) -> Verdict:
        if not hasattr(local, "worker"):
            local.worker = _Worker(function, seconds, memory, environment or {})
            workers.append(local.worker)
        kind, text = local.worker.call(arguments[index])
        return Verdict(index, kind, text)

    with ThreadPoolExecutor(processes) as pool:
        verdicts = list(pool.map(call, range(len(arguments))))
    for worker in workers:
        worker.close()
    failures = tuple(verdict for verdict in verdicts if verdict.kind != "held")
    return Result(len(verdicts), len(verdicts) - len(failures), failures)


class _Worker:
    """One process, started again after a call that ended it."""

    def __init__(self, function: str, seconds: float, memory: int, environment: dict[str, str]) -> None:
        self._command = [sys.executable, "-W", "ignore", "-m", "torture.worker_pool", function, str(memory)]
        paths = os.pathsep.join(filter(None, [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]))
        self._environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment}
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def call(self, arguments: Sequence[Any]) -> tuple[str, str]:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(list(arguments)) + "\n")
        process.stdin.flush()
        until = _processor_time(process.pid) + self._seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            begun = time.monotonic()
            while not selector.select(_LOOK):
                waited = time.monotonic() - begun > _PATIENCE * self._seconds
                if waited or _processor_time(process.pid) > until:
                    self.close()
                    return "slow", "no answer" if waited else f"more than {self._seconds:g} s"
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self._process = None
            return "crash", f"exit status {status}"
        kind, text = json.loads(line)
        return kind, text

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process


def _processor_time(pid: int) -> float:
    """Seconds that a process has computed: a busy machine makes no call slow. 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def judged(attempt: Callable[[], str | None]) -> tuple[str, str]:
    """The verdict on an attempt: what it returns is what is wrong with the answer, None where nothing is."""
    from gama.errors import GamaError

    try:
        wrong = attempt()
    except GamaError as error:
        told = "more memory than there is" in str(error)  # it was asked for, refused at once, and named
        short_of_memory = isinstance(error.__cause__, MemoryError) or "allocate memory" in str(error)
        if (short_of_memory and not told) or "\n" in str(error):
            return "memory" if short_of_memory else "wrong", str(error)[:500]
        return "held", f"{type(error).__name__}: {error}"
    except MemoryError as error:
        return "memory", repr(error)[:500]
    except Exception as error:
        return "internal", f"{type(error).__name__}: {error}"[:500] + f" @ {_where(error)}"
    return ("held", "answered") if wrong is None else ("wrong", wrong)


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _serve(function: str, memory: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no verdict
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        kind, text = called(*json.loads(line))
        answers.write(json.dumps([kind, text.encode("utf-8", "backslashreplace").decode()]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
