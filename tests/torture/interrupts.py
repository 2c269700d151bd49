"""Signals at seeded moments against every command: ``python tests/torture/interrupts.py --seed 1 --count 200``.

A try starts a real ``gama`` in a session of its own, waits, sends SIGINT to the whole foreground group as a terminal
does (or SIGTERM or SIGKILL to the parent alone), and looks at the exit status, the time, the streams, the processes
that are left, and the lines that had been written before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 2.0
"""Seconds to the end of the process on a machine with nothing else to do; scaled by the load where there is more."""
_START = 0.2  # seconds of processor time in which the interpreter may still be starting
PATIENCE = 60.0  # seconds after which a process that does not end is killed
LONG_SECONDS = 1200
CLIPS = 24
_NOISE = (
    "Traceback",
    "KeyboardInterrupt",
    "Exception ignored",
    "terminate called",
    "Fatal Python error",
    "leaked",
    "onnxruntime:",
)
_EXPECTED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
ROOT = Path(__file__).resolve().parents[2]


Say = Callable[[str], None]


@dataclass(frozen=True)
class Failure:
    """One try that did not hold.

    Attributes:
        command: words after ``gama``.
        signal: its name.
        delay: seconds from the start of the process to the signal.
        status: exit status; negative for a signal.
        seconds: from the signal to the end.
        stderr: its end.
        children: command lines of processes that outlived the parent.
        lost: what is wrong with the files, empty for nothing.
    """

    command: str
    signal: str
    delay: float
    status: int | None
    seconds: float
    stderr: str
    children: tuple[str, ...] = ()
    lost: str = ""


@dataclass
class Outcome:
    """Counts of a battery.

    Attributes:
        tried: signals sent to a process that was running.
        held: those that ended as they should.
        before_program: ended inside the interpreter's own start, before any line of gama ran; counted in neither.
        finished: commands that had ended before their signal; counted in neither.
        seconds: from signal to end, of all tries.
        by_case: tries of each case.
    """

    tried: int = 0
    held: int = 0
    before_program: int = 0
    finished: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    by_case: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Case:
    """A command that is disturbed.

    Attributes:
        name: what the counts call it.
        words: after ``gama``; ``{out}`` is a fresh folder of the try, ``{in}`` that of the inputs.
        last: seconds up to which the signal comes.
        stdin: what it is sent, and whether stdin stays open.
        lines: patterns below ``{out}`` of files whose lines must be whole and stay.
        terminal: run it in a pseudo-terminal and type Ctrl-C.
        twice: the first Ctrl-C may stop an answer alone; a second one a second later ends the command.
        weight: how often it is drawn.
    """

    name: str
    words: tuple[str, ...]
    last: float
    stdin: str | None = None
    lines: tuple[str, ...] = ()
    terminal: bool = False
    twice: bool = False
    weight: int = 2


_REQUESTS = "".join(
    json.dumps(request) + "\n"
    for request in (
        {"id": 1, "do": "attach", "path": "{in}/scenes/audio/000000.flac"},
        *({"id": n, "do": "ask", "question": f"what happened? {n}"} for n in range(2, 60)),
    )
)
_ROWS = ("ask", "--manifest", "{in}/scenes/manifest.json")
_OUT = ("--out", "{out}/answers.jsonl")
_PARTS = ("answers.jsonl*",)

CASES = (
    Case("help", ("--help",), 0.15, weight=4),
    Case("version", ("--version",), 0.15),
    Case("ask", ("ask", "{in}/scenes/audio/000000.flac", "what happened?"), 1.0, weight=4),
    Case("ask flac", ("ask", "{in}/long.flac", "what happened?"), 5.0, weight=5),
    Case("ask mp3", ("ask", "{in}/long.mp3", "what happened?"), 5.0, weight=5),
    Case("ask m4a", ("ask", "{in}/long.m4a", "what happened?"), 5.0, weight=5),
    Case("ask two", ("ask", "{in}/long.flac", "{in}/long.mp3", "what happened?"), 5.0, weight=3),
    Case("ask manifest", (*_ROWS, *_OUT), 4.0, lines=_PARTS, weight=4),
    Case("ask long manifest", ("ask", "--manifest", "{in}/long.json", *_OUT), 6.0, lines=_PARTS, weight=3),
    Case("ask stdout", _ROWS, 3.0),
    Case("ask devices", (*_ROWS, *_OUT, "--devices", "cpu,cpu"), 5.0, lines=_PARTS, weight=6),
    Case(
        "chat json",
        ("chat", "--json", "--log", "{out}/log"),
        4.0,
        stdin=_REQUESTS,
        lines=("log",),
        twice=True,
        weight=5,
    ),
    Case("chat json long", ("chat", "--json", "{in}/long.mp3"), 8.0, stdin=_REQUESTS, twice=True, weight=3),
    Case("chat pipe", ("chat", "{in}/scenes/audio/000000.flac"), 3.0, stdin="what happened?\n" * 80, weight=3),
    Case("chat", ("chat", "{in}/scenes/audio/000000.flac"), 3.0, terminal=True, weight=5),
    Case("chat long", ("chat", "{in}/long.mp3"), 5.0, terminal=True, weight=3),
    Case("scenes", ("prepare", "scenes", "--count", "200", "--out", "{out}/s"), 4.0),
    Case("scenes 2", ("prepare", "scenes", "--count", "200", "--out", "{out}/s", "--workers", "2"), 4.0, weight=4),
    Case("audio", ("prepare", "audio", "{in}/many", "--out", "{out}/a", "--workers", "2"), 4.0, weight=6),
    Case("check", ("prepare", "check", "{in}/many.json", "--workers", "2"), 4.0, weight=6),
    Case(
        "features",
        ("prepare", "features", "{in}/many.json", "--out", "{out}/f", "--workers", "2", "--shard-size", "8"),
        6.0,
        weight=5,
    ),
    Case(
        "train",
        (
            *("train", "--recipe", "{in}/stage.yaml", "--stage", "1", "--from", "{in}/base"),
            *("--data", "{in}/scenes/manifest.json", "--output", "{out}/run"),
        ),
        12.0,
        lines=("run/metrics.jsonl",),
        weight=6,
    ),
    Case("eval", ("eval", "{in}/scenes/manifest.json", "--answers", "{out}/eval.jsonl"), 4.0),
    Case("ask torch", (*_ROWS, *_OUT, "--runtime", "torch"), 8.0, lines=_PARTS),
    Case("export", ("export", "--out", "{out}/onnx"), 12.0),
    Case("quantize", ("quantize", "mini", "--out", "{out}/q"), 8.0, weight=1),
    Case("bench", ("bench", "--starts", "1", "--repeats", "1"), 6.0, weight=3),
    Case("plan", ("plan", "mini", "--stage", "1"), 2.0, weight=1),
    Case("doctor", ("doctor",), 3.0, weight=2),
    Case("inspect", ("inspect", "mini"), 1.0, weight=1),
)


def run(
    seed: int,
    count: int,
    *,
    cases: Sequence[Case] = CASES,
    inputs: Path | None = None,
    signals: Sequence[signal.Signals] = (signal.SIGINT,) * 8 + (signal.SIGTERM,) + (signal.SIGKILL,),
    say: Say = lambda text: None,
) -> Outcome:
    """Disturb ``count`` commands that are running.

    Args:
        seed: of commands, delays and signals.
        count: tries; commands that end before their signal are drawn again.
        cases: commands to draw from.
        inputs: folder of :func:`make_inputs`; made for the run where it is not given.
        signals: drawn from.
        say: told each try.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    pool = [case for case in cases for _ in range(case.weight)]
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job hands that on to what it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="gama-interrupts-") as place:
        folder = inputs or make_inputs(Path(place) / "in")
        for number in range(4 * count):
            if outcome.tried >= count:
                break
            case, delay = chance.choice(pool), chance.random()
            number_of = chance.choice(signals)
            out = Path(place) / f"out{number}"
            out.mkdir()
            delay *= 0.15 if chance.random() < 0.1 else case.last  # the first moments often
            attempt = _terminal if case.terminal else _piped
            attempt(case, delay, number_of, folder, out, outcome, say)
            shutil.rmtree(out, ignore_errors=True)
    return outcome


def program() -> list[str]:
    """The console script beside this Python, or the module where there is none."""
    script = Path(sys.executable).with_name("gama")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "gama_cli.main"]


def _environment(out: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "GAMA_HOME": str(out / "home"), "TERM": "xterm", "HF_HUB_OFFLINE": "1"}
    return {"OMP_NUM_THREADS": "1", **os.environ, **own}


def _filled(text: str, folder: Path, out: Path) -> str:
    return text.replace("{in}", str(folder)).replace("{out}", str(out))


# -- one try -----------------------------------------------------------------------------------------------------------


def _piped(
    case: Case,
    delay: float,
    number: signal.Signals,
    folder: Path,
    out: Path,
    outcome: Outcome,
    say: Say,
) -> None:
    words = [_filled(word, folder, out) for word in case.words]
    worked = _worked()
    with (out / "stdout").open("wb") as stdout, (out / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*program(), *words],
            stdin=subprocess.DEVNULL if case.stdin is None else subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=_environment(out),
            cwd=out,
            start_new_session=True,
        )
        begun = time.monotonic()
        if process.stdin is not None and case.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.write(_filled(case.stdin, folder, out).encode())
                process.stdin.flush()  # and it stays open, as a front end's pipe does
        time.sleep(max(0.0, delay - (time.monotonic() - begun)))
        before = _lines(case, out)
        if process.poll() is not None:
            outcome.finished += 1
            if process.stdin is not None:
                process.stdin.close()
            if process.returncode != 0:
                say(f"{case.name}: ended by itself with {process.returncode}: {_tail(out)}")
            return
        sent = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
        if case.twice and number == signal.SIGINT:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            if process.poll() is None:
                sent = time.monotonic()
                os.killpg(process.pid, number)
        status = _waited(process)
        seconds = time.monotonic() - sent
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
    used, lost = _worked() - worked, _lost(case, out, before)
    ending = _Ending(case, words, number, delay, status, seconds, used, _tail(out), process.pid, lost)
    _judge(ending, outcome, say)


def _worked() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _waited(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def _terminal(
    case: Case,
    delay: float,
    number: signal.Signals,
    folder: Path,
    out: Path,
    outcome: Outcome,
    say: Say,
) -> None:
    """Ctrl-C typed at a terminal: before the prompt it ends the program, at the prompt and in an answer it does not."""
    import pexpect

    words = [_filled(word, folder, out) for word in case.words]
    worked = _worked()
    first, *rest = program()
    child = pexpect.spawn(first, [*rest, *words], env=_environment(out), cwd=str(out), timeout=PATIENCE, echo=False)
    begun, seen = time.monotonic(), b""
    asked = False
    while time.monotonic() - begun < delay:
        seen += _read(child, 0.02)
        if not asked and b">>>" in seen:
            child.send("what happened?\r")
            asked = True
    if number == signal.SIGINT:
        child.sendintr()
    else:
        os.kill(child.pid, number)
    sent = time.monotonic()
    status, stays = None, False
    while time.monotonic() - sent < PATIENCE:
        seen += _read(child, 0.02)
        if not child.isalive():
            break
        now = time.monotonic() - sent
        if number == signal.SIGINT and not stays and now > LIMIT and b">>>" in seen:
            stays = True  # as it should: it is left by /exit
            child.send("\x15/exit\r")
    seconds = 0.0 if stays else time.monotonic() - sent
    if child.isalive():
        child.close(force=True)
    else:
        seen += _read(child, 0.02)
        child.close()
        status = child.exitstatus if child.exitstatus is not None else -(child.signalstatus or 0)
    if stays and status == 0:
        status = 130
    text = seen.decode("utf-8", "replace")[-2000:]
    ending = _Ending(case, words, number, delay, status, seconds, _worked() - worked, text, child.pid)
    _judge(ending, outcome, say)


def _read(child: object, seconds: float) -> bytes:
    import pexpect

    try:
        return child.read_nonblocking(65536, timeout=seconds)  # type: ignore[attr-defined,no-any-return]
    except (pexpect.TIMEOUT, pexpect.EOF):
        time.sleep(seconds)
        return b""


@dataclass(frozen=True)
class _Ending:
    """How a process ended: what :class:`Failure` tells, and what it is judged by."""

    case: Case
    words: Sequence[str]
    number: signal.Signals
    delay: float
    status: int | None
    seconds: float
    worked: float
    stderr: str
    session: int
    lost: str = ""


def _judge(end: _Ending, outcome: Outcome, say: Say) -> None:
    children = tuple(_left(end.session))
    what = f"{end.case.name} {end.number.name} {end.delay:.3f} s"
    noisy = end.number != signal.SIGKILL and any(mark in end.stderr for mark in _NOISE)
    if noisy and not children and _before_program(end.stderr):
        outcome.before_program += 1
        say(f"--   {what}: in the interpreter's own start: {end.stderr.strip()[-100:]!r}")
        return
    outcome.tried += 1
    outcome.by_case[end.case.name] += 1
    outcome.seconds.append(end.seconds)
    # a shell calls death by signal 2 status 130 as well; only the interpreter's own start ends so
    expected = end.status == _EXPECTED[end.number] or (end.status == -end.number and end.worked < _START)
    if expected and end.seconds <= _limit() and not noisy and not children and not end.lost:
        outcome.held += 1
        say(f"ok   {what} -> {end.status} in {end.seconds:.2f} s")
        return
    rounded = round(end.delay, 3), end.status, round(end.seconds, 2)
    outcome.failures.append(
        Failure(" ".join(end.words), end.number.name, *rounded, end.stderr, children=children, lost=end.lost)
    )
    say(f"FAIL {what} -> {end.status} in {end.seconds:.2f} s {children} {end.lost}\n{end.stderr[-1500:]}")


def _limit() -> float:
    return LIMIT * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _before_program(stderr: str) -> bool:
    """Whether a traceback lies in the interpreter's own start: no file of gama had been entered but by the import."""
    if "init_import_site" in stderr or "<frozen site>" in stderr:
        return True
    files = [line for line in stderr.splitlines() if line.lstrip().startswith('File "')]
    own = [line for line in files if "/gama" in line.partition('"')[2].partition('"')[0]]
    script = f'File "{program()[0]}"'
    return bool(files) and all(script in line for line in own) and not any("gama_cli" in line for line in files)


def _tail(out: Path) -> str:
    return (out / "stderr").read_bytes().decode("utf-8", "replace")[-2000:]


def _left(session: int) -> Iterator[str]:
    """Command lines of processes of a session that outlive their parent by more than the limit."""
    ends = time.monotonic() + _limit()
    while found := list(_members(session)):
        if time.monotonic() > ends:
            break
        time.sleep(0.05)
    for pid, command in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        yield command


def _members(session: int) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except (OSError, IndexError, ValueError):
            continue


# -- files -------------------------------------------------------------------------------------------------------------


def _lines(case: Case, out: Path) -> int:
    """Whole lines so far."""
    return sum(f.read_bytes().count(b"\n") for pattern in case.lines for f in out.glob(pattern) if f.is_file())


def _lost(case: Case, out: Path, before: int) -> str:
    after = _lines(case, out)
    if after < before:
        return f"{before} lines had been written, {after} are there"
    for pattern in case.lines:
        for file in out.glob(pattern):
            for line in file.read_bytes().split(b"\n")[:-1]:
                try:
                    row = json.loads(line)
                except ValueError:
                    return f"{file.name} holds a line that is not JSON: {line[:80]!r}"
                if isinstance(row, dict) and "error" in row:
                    return f"{file.name} holds an error in place of an answer: {row['error']}"
    return ""


def make_inputs(folder: Path) -> Path:
    """Long and short clips, manifests, a small model and its recipe."""
    import numpy as np
    import soundfile
    from training import tiny

    folder.mkdir(parents=True)
    manifest = tiny.write_clips(folder / "scenes", CLIPS)
    noise = np.random.default_rng(0).integers(-90, 90, 44_100 * 60).astype(np.int16)
    for kind, options in (("flac", {}), ("mp3", {"subtype": "MPEG_LAYER_III"})):
        with soundfile.SoundFile(folder / f"long.{kind}", "w", 44_100, 1, **options) as file:
            for _ in range(LONG_SECONDS // 60):
                file.write(noise)
    _write_m4a(folder / "long.m4a", noise)
    rows = json.loads(manifest.read_text())
    many = folder / "many"
    many.mkdir()
    for number in range(120):
        shutil.copy(folder / "scenes" / rows[number % len(rows)]["audio_id"], many / f"{number}.flac")
    copied = [{**rows[n % len(rows)], "audio_id": f"many/{n}.flac"} for n in range(120)]
    (folder / "many.json").write_text(json.dumps(copied))
    long = [{**rows[n], "audio_id": f"long.{kind}"} for n, kind in enumerate(("flac", "mp3", "m4a"))]
    (folder / "long.json").write_text(json.dumps(long))
    tiny.write_parent(folder / "base")
    tiny.write_stage(folder / "stage.yaml", max_steps=400, save_steps=20)
    return folder


def _write_m4a(path: Path, noise: object) -> None:
    import av
    import numpy as np

    samples = np.asarray(noise)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        for _ in range(LONG_SECONDS // 60):
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = 44_100
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--case", action="append", help="only cases of this name")
    parser.add_argument("--signal", choices=["INT", "TERM", "KILL"])
    parser.add_argument("--inputs", type=Path, help="folder of inputs, made where it is not there")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    inputs = given.inputs
    if inputs is not None and not inputs.is_dir():
        make_inputs(inputs)
    cases = [case for case in CASES if not given.case or case.name in given.case]
    signals = {"signals": [signal.Signals[f"SIG{given.signal}"]]} if given.signal else {}
    outcome = run(
        given.seed, given.count, cases=cases, inputs=inputs, say=lambda text: print(text, flush=True), **signals
    )
    seconds = sorted(outcome.seconds) or [0.0]
    told: dict[str, object] = {"tried": outcome.tried, "held": outcome.held, "before_program": outcome.before_program}
    told |= {"finished": outcome.finished, "by_case": dict(outcome.by_case)}
    quantiles = {share: round(seconds[int(share * (len(seconds) - 1))], 2) for share in (0.5, 0.9, 0.99)}
    print(json.dumps({**told, "failed": len(outcome.failures), "seconds": quantiles, "slowest": round(seconds[-1], 2)}))
    sys.exit(1 if outcome.failures else 0)


if __name__ == "__main__":
    main()
