"""Ctrl-C and SIGTERM: one orderly end at any moment, whatever swallows the exception, and no worker left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gama.interrupts import Interrupted, Terminated

PATIENCE = 60  # seconds; a busy machine takes several to start Python
ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "examples" / "dog_then_bells.flac"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path}


def ended(body: str, *words: object, **options: Any) -> tuple[int, str, str]:
    """Status and streams of a script that may send itself signals; it runs as the ``gama`` script does."""
    head = (
        "import os, signal, sys, time\n"
        "def send(number=signal.SIGINT):\n"
        "    os.kill(os.getpid(), number)\n"
        "    time.sleep(0.01)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + body, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **{"env": environment(), **options},
    )
    return done.returncode, done.stdout, done.stderr


def until(reached: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < ends, f"{what}: not within {PATIENCE} s"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


# -- the exception's way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_lost_in_a_callback_is_raised_again(number: str, status: int) -> None:
    body = f"""
from gama import interrupts
class Lost:
    def __del__(self):
        send(signal.{number})
def command():
    Lost()
    print("it went on", flush=True)
    while True:
        time.sleep(0.01)
interrupts.run(command)
"""
    assert ended(body) == (status, "it went on\n", "")


def test_a_signal_lost_to_a_bare_except_is_raised_again() -> None:
    body = """
from gama import interrupts
def command():
    try:
        send()
    except BaseException:
        pass
    while True:
        time.sleep(0.01)
interrupts.run(command)
"""
    assert ended(body) == (130, "", "")


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_that_reaches_another_thread_ends_the_main_thread_s_wait(number: str, status: int) -> None:
    body = f"""
import threading
from gama import interrupts
def elsewhere():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.{number})
def command():
    threading.Thread(target=elsewhere).start()
    threading.Event().wait()
interrupts.run(command)
"""
    assert ended(body) == (status, "", "")


def test_a_second_ctrl_c_does_not_break_off_the_end_of_the_first() -> None:
    body = """
from gama import interrupts
def command():
    try:
        send()
    finally:
        send()
        time.sleep(0.5)
        print("closed")
interrupts.run(command)
"""
    assert ended(body) == (130, "closed\n", "")


def test_files_of_a_generator_that_was_left_are_whole(tmp_path: Path) -> None:
    body = """
from gama import interrupts
def lines():
    with open(sys.argv[1], "w") as file:
        try:
            while True:
                file.write("a line\\n")
                yield
        finally:
            time.sleep(0.3)
            file.write("the end\\n")
def command():
    for _ in lines():
        send()
interrupts.run(command)
"""
    file = tmp_path / "lines"
    assert ended(body, file) == (130, "", "")
    assert file.read_text() == "a line\nthe end\n"


def test_an_error_that_the_signal_has_caused_is_not_told(tmp_path: Path) -> None:
    body = """
import gama_cli.completion, gama_cli.main
import click
@click.command()
def completion():
    try:
        send()
    except KeyboardInterrupt:
        raise ValueError("a file ended too early")
gama_cli.completion.completion = completion
sys.argv = ["gama", "completion"]
gama_cli.main.main()
"""
    assert ended(body) == (130, "", "")


def test_no_thread_is_waited_for() -> None:
    body = """
from gama import interrupts
def command():
    with interrupts.thread_pool(2) as pool:
        for _ in range(9):
            pool.submit(time.sleep, 3600)
        send()
interrupts.run(command)
"""
    assert ended(body) == (130, "", "")


def test_threads_are_waited_for_without_a_signal() -> None:
    body = """
from gama import interrupts
def command():
    with interrupts.thread_pool(1) as pool:
        pool.submit(lambda: (time.sleep(0.3), print("done")))
interrupts.run(command)
"""
    assert ended(body) == (0, "done\n", "")


def test_ctrl_c_after_the_work_loses_no_output() -> None:
    body = """
import atexit
from gama import interrupts
atexit.register(send)
interrupts.run(lambda: print("the answer"))
"""
    assert ended(body) == (130, "the answer\n", "")


def test_what_a_shell_ignores_stays_ignored() -> None:
    body = """
from gama import interrupts
interrupts.run(lambda: (send(), print("still here")))
"""
    ignoring = ended(body, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert ignoring == (0, "still here\n", "")


@pytest.mark.parametrize(
    "module", ["gama", "gama._registration", "gama.interrupts", "gama_cli.commands", "click", "uuid", "gama_cli.config"]
)
def test_ctrl_c_while_the_program_starts(module: str) -> None:
    body = """
name = sys.argv.pop(1)
def importing(event, arguments):
    if event == "import" and arguments[0] == name:
        send()
from gama_cli.main import main
sys.modules.pop(name, None)
sys.addaudithook(importing)
sys.argv = ["gama", "ask", "x.wav", "what?"]
main()
"""
    status, out, err = ended(body, module)
    assert (status, out, err.strip()) == (130, "", "")


def test_ctrl_c_in_a_terminal_s_chat_stops_what_is_done_and_nothing_else() -> None:
    body = """
import threading
from gama import interrupts
from gama_cli.chat_terminal import Terminal
class Session:
    is_answering, stop = False, threading.Event()
class Lost:
    def __del__(self):
        send()
def decoding(request):
    Lost()  # as in a callback of a decoder
    while True:
        interrupts.check()
        yield from ()
def command():
    print(Terminal(Session(), decoding, picture=False)._do({}), interrupts.pending(), flush=True)
    time.sleep(0.5)
    print("still here")
interrupts.run(command)
"""
    assert ended(body) == (0, "False False\nstill here\n", "stopped\n")


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        rows(tmp_path, 3)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        command = ("prepare", "questions", "rows.json", "--out", "qa.json", "--endpoint", address, "--model", "m")
        with gama(*command, folder=tmp_path) as process:
            server.settimeout(PATIENCE)
            connection, _ = server.accept()
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert process.stderr and process.stderr.read().strip() == ""
            connection.close()


def test_no_exception_passes_through_an_import(tmp_path: Path) -> None:
    """It would go through C++ that calls Python, which aborts."""
    (tmp_path / "native.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(float(os.environ['IMPORT_TAKES']))\n"
        "    print('imported', flush=True)\n"
        "except BaseException:\n"
        "    os.abort()\n"
    )
    body = f"""
from gama import interrupts
sys.path.insert(0, {str(tmp_path)!r})
def command():
    import native
    try:
        while True:
            time.sleep(0.01)
    finally:
        print("closed")
interrupts.run(command)
"""
    quick, long = ({"env": {**environment(), "IMPORT_TAKES": seconds}} for seconds in ("0.2", "60"))
    assert ended(body, **quick) == (130, "imported\nclosed\n", "")
    assert ended(body, **long) == (130, "", "")


# -- decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flac", "wav", "mp3", "m4a"])
def test_ctrl_c_inside_a_decoder_s_callback(tmp_path: Path, kind: str) -> None:
    clip = tmp_path / f"clip.{kind}"
    samples = np.random.default_rng(0).integers(-90, 90, 44_100 * 30).astype(np.int16)
    if kind == "m4a":
        write_m4a(clip, samples)
    else:
        soundfile.write(clip, samples, 44_100, **({"subtype": "MPEG_LAYER_III"} if kind == "mp3" else {}))
    body = """
import io
from gama import audio, interrupts
import gama.audio.source, gama.audio.decoding
class Callbacks(io.FileIO):
    armed = False
    def _count(self):
        if Callbacks.armed:
            Callbacks.armed = False
            send()
    def read(self, size=-1):
        self._count()
        return super().read(size)
    def readinto(self, buffer):
        self._count()
        return super().readinto(buffer)
gama.audio.source._open_path = lambda path, given: Callbacks(path)
def command():
    from gama.audio.loading import _Reading
    whole = _Reading._collected
    def collected(self):
        Callbacks.armed = True
        return whole(self)
    _Reading._collected = collected
    try:
        audio.load(sys.argv[1])
    except Exception as error:
        print("an error in its place:", error)
    print("decoded to its end")
interrupts.run(command)
"""
    assert ended(body, clip) == (130, "", "")


def write_m4a(path: Path, samples: np.ndarray[Any, np.dtype[np.int16]]) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 44_100
        for part in (frame, None):
            for packet in stream.encode(part):
                container.mux(packet)


# -- workers -----------------------------------------------------------------------------------------------------------

POOL = """
from gama import interrupts
from gama.processes import process_pool, shielded
def command():
    with process_pool(2) as pool:
        with shielded():
            waiting = [pool.submit(time.sleep, 3600) for _ in range(4)]
        print(*pool._processes, flush=True)
        waiting[0].result()
if __name__ == "__main__":
    interrupts.run(command)
"""


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout
    return [int(word) for word in process.stdout.readline().split()]


def pooled() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time\n" + POOL],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("wait", [0.0, 0.3, 1.5])
def test_ctrl_c_to_all_processes_of_a_pool(wait: float) -> None:
    with pooled() as process:
        workers = workers_of(process)
        assert len(workers) == 2
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr and process.stderr.read() == ""
        assert not any(map(is_alive, workers))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.parametrize("wait", [0.0, 1.5])
def test_workers_die_with_their_parent(number: signal.Signals, status: int, wait: float) -> None:
    with pooled() as process:
        workers = workers_of(process)
        time.sleep(wait)
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
        until(lambda: not any(map(is_alive, workers)), "the end of the workers")


def test_a_worker_without_prctl_sees_its_parent_go() -> None:
    body = POOL.replace("process_pool(2)", "process_pool(2, elsewhere)")
    body = "import sys\ndef elsewhere():\n    pass\nsys.platform = 'darwin'\n" + body
    with subprocess.Popen(
        [sys.executable, "-c", "import time\n" + body], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        workers = workers_of(process)
        time.sleep(2.0)
        process.kill()
        process.wait()
        until(lambda: not any(map(is_alive, workers)), "the end of the workers")


# -- commands ----------------------------------------------------------------------------------------------------------


def gama(*words: object, folder: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gama_cli.main", *map(str, words)],
        env=environment(),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def rows(folder: Path, count: int) -> Path:
    manifest = folder / "rows.json"
    question = "what happened, number"
    manifest.write_text(
        json.dumps(
            [
                {"audio_id": str(CLIP), "instruction": f"{question} {n}?", "output": "x", "caption": "a dog"}
                for n in range(count)
            ]
        )
    )
    return manifest


def whole_lines(folder: Path) -> list[dict[str, Any]]:
    """Every line so far; a half-written last one does not count."""
    files = sorted(folder.glob("answers.jsonl*"))
    return [json.loads(line) for file in files for line in file.read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize("devices", [(), ("--devices", "cpu,cpu")], ids=["one", "two"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_manifest_loses_no_answer(
    tmp_path: Path, devices: tuple[str, ...], number: signal.Signals, status: int
) -> None:
    words = ("ask", "--manifest", rows(tmp_path, 300), "--out", "answers.jsonl", *devices)
    with gama(*words, folder=tmp_path) as process:
        until(lambda: whole_lines(tmp_path), "the first answer")
        before = whole_lines(tmp_path)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        assert process.wait(PATIENCE) == status
        until(lambda: not session(process.pid), "the end of the workers")
        after = whole_lines(tmp_path)
        assert len(after) >= len(before) and not any("error" in row for row in after)
        assert process.stderr
        told = process.stderr.read().split("\n")
        if number != signal.SIGKILL:
            assert any(line.endswith("of 300 answers are kept; --resume goes on") for line in told)
            assert len([line for line in told if line]) == 1, told
        time.sleep(0.5)
        assert whole_lines(tmp_path) == after


def session(leader: int) -> list[int]:
    """Processes of a session that still run."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    fields = [line.split() for line in found.splitlines()]
    return [int(pid) for pid, sess, stat in fields if int(sess) == leader and not stat.startswith("Z")]


def test_chat_that_is_loading_its_model(tmp_path: Path) -> None:
    with gama("chat", CLIP, folder=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin and process.stderr and process.stdout
        process.stdin.write("what happened?\n")
        process.stdin.flush()
        process.stderr.readline()  # the clip is there, and the model is on its way
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read().strip() == ""


def test_a_second_ctrl_c_ends_chat_json_with_requests_waiting(tmp_path: Path) -> None:
    with gama("chat", "--json", CLIP, folder=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdin and process.stderr and process.stdout
        request = json.dumps({"do": "ask", "question": "describe the sound in every detail"})
        process.stdin.write(f"{request}\n" * 300)
        process.stdin.flush()
        for line in process.stdout:
            if json.loads(line)["event"] == "piece":
                break
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert [json.loads(line)["event"] for line in process.stdout][-1] in ("piece", "answer", "done", "asking")
        assert process.stderr.read().strip() == ""


def test_sigterm_leaves_a_terminal_as_it_was(tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect")
    child = pexpect.spawn(
        sys.executable, ["-m", "gama_cli.main", "chat"], env=environment(), cwd=str(tmp_path), timeout=PATIENCE
    )
    child.expect_exact(">>>")
    time.sleep(0.5)
    child.kill(signal.SIGTERM)
    rest = child.read().decode()
    child.close()
    assert (child.exitstatus, child.signalstatus) == (143, None)
    assert "Traceback" not in rest and "\x1b[?2004l" in rest  # bracketed paste is off again


def test_the_bench_s_measurements_die_with_it(tmp_path: Path) -> None:
    with gama("bench", "--starts", "1", "--repeats", "1", folder=tmp_path) as process:
        until(lambda: len(session(process.pid)) > 1, "a measurement")
        time.sleep(1.0)
        process.kill()
        process.wait()
        until(lambda: not session(process.pid), "the end of the measurement")


@pytest.mark.parametrize("error", [Interrupted(), Terminated()], ids=["ctrl-c", "sigterm"])
def test_training_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, error: BaseException
) -> None:
    from gama.training import curriculum
    from gama_cli import train

    step = curriculum.Step("mine/stage1", tmp_path / "stage1.yaml", tmp_path / "run", {}, None)  # type: ignore[arg-type]

    def stopped(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(curriculum, "train_stage", stopped)
    monkeypatch.setattr(train, "_say_plan", lambda step: None)
    with pytest.raises(type(error)):
        train._train_one(step, curriculum.Request("mine", "1"), first=True)
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"mine/stage1: stopped; --resume continues from the last checkpoint in {tmp_path / 'run'}"
