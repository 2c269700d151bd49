"""What a command is told to write: never an input, never half, refused before the work and without a change."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import gama
import gama_cli
from gama_cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
EVENT = {"label": "rain", "start": 0.0, "end": 0.5, "count": 1, "level_db": -20.0, "centroid_hz": 900.0}
ROW = {"audio_id": "a.wav", "instruction": "what happened?", "input": "", "output": "rain", "dataset": "x"}
ROW |= {"task": "what", "events": [EVENT], "duration": 0.5}

FILES: dict[str, tuple[str, ...]] = {
    "ask --out": ("ask", "--manifest", "rows.json", "--out"),
    "chat --log": ("chat", "a.wav", "--log"),
    "export embeds --out": ("export", "embeds", "a.wav", "what?", "--out"),
    "eval --answers": ("eval", "rows.json", "--answers"),
    "prepare check --out": ("prepare", "check", "rows.json", "--out"),
    "prepare combine --out": ("prepare", "combine", "rows.json", "--out"),
    "prepare esc50 --out": ("prepare", "esc50", "esc50", "--out"),
    "prepare questions --out": (
        *("prepare", "questions", "rows.json", "--endpoint", "http://localhost:9/v1", "--model", "m", "--out"),
    ),
    "train plot --out": ("train", "plot", "run", "--out"),
}
"""The option of each command that names a file to write, and words that end with it."""

FOLDERS: dict[str, tuple[str, ...]] = {
    "convert --out": ("convert", "--base", "base", "--stage1", "--out"),
    "export --out": ("export", "--out"),
    "export onnx --out": ("export", "onnx", "--out"),
    "export adapter --out": ("export", "adapter", "--out"),
    "export merged --out": ("export", "merged", "--out"),
    "prepare audio --out": ("prepare", "audio", "rows.json", "--out"),
    "prepare features --out": ("prepare", "features", "rows.json", "--out"),
    "prepare real --out": ("prepare", "real", "--audio-root", "esc50", "--out"),
    "prepare scenes --out": ("prepare", "scenes", "--count", "1", "--out"),
    "quantize --out": ("quantize", "mini", "--out"),
    "recipes copy dest": ("recipes", "copy", "mini"),
    "train --output": ("train", "--recipe", "mini", "--stage", "1", "--output"),
}
"""The same for folders."""

ELSEWHERE = {
    "pull --to",  # tests/hub
    "ask --cache", "chat --cache", "eval --cache", "prepare questions --cache",  # made as they are needed
}  # fmt: skip
INPUTS = {
    "adapter", "audio", "audio-root", "base", "calibration", "clap", "clips", "compare", "data", "encoder", "folder",
    "from", "held-out", "manifest", "manifests", "path", "qformer", "real", "replay", "root", "runs", "sources",
    "table", "tokenizer", "words",
}  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of inputs, in which the commands run."""
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(8_000), 16_000)
    (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    (tmp_path / "notes.txt").write_bytes(b"one\ntwo, and no end of the line")
    (tmp_path / "esc50" / "meta").mkdir(parents=True)
    (tmp_path / "esc50" / "meta" / "esc50.csv").write_text("filename,fold,target,category\n1-1-A-0.wav,1,0,dog\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    return tmp_path


def state(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(runner: CliRunner, place: Path, words: tuple[str, ...], *, code: int | None = 1) -> str:
    """What a command says that ends with an error and changes nothing."""
    before = state(place)
    done = runner.invoke(cli, words)
    assert done.exit_code == code if code is not None else done.exit_code in (1, 2)
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert state(place) == before
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")][-1]


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that name it."""
    yield name.strip(), group
    if isinstance(group, click.Group):
        context = click.Context(group)
        for each in group.list_commands(context):
            found = group.get_command(context, each)
            assert found is not None
            yield from commands(found, f"{name} {each}")


def test_every_path_of_a_command_is_an_input_or_is_in_the_tables() -> None:
    """A new option that names an output has to be added above, with the words that try it."""
    known = set(FILES) | set(FOLDERS) | ELSEWHERE
    unknown = []
    for name, command in commands(cli):
        for param in command.params:
            label = max((word.lstrip("-") for word in param.opts), key=len)
            key = f"{name} --{label}" if isinstance(param, click.Option) else f"{name} {label}"
            if isinstance(param.type, click.Path) and label not in INPUTS and key not in known:
                unknown.append(key)
    assert unknown == []


@pytest.mark.parametrize("option", FILES)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    runner: CliRunner, place: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the work was begun")

    for name in ("gama.inference.opening.load", "gama.data.scenes.prepare.compose", "gama.data.clips.clip_facts"):
        monkeypatch.setattr(name, forbidden)
    assert "notes.txt" in refused(runner, place, (*FILES[option], "notes.txt/x.jsonl"))
    assert "esc50" in refused(runner, place, (*FILES[option], "esc50"), code=None)


@pytest.mark.parametrize("option", FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused(runner: CliRunner, place: Path, option: str) -> None:
    assert "notes.txt" in refused(runner, place, (*FOLDERS[option], "notes.txt/x"))
    assert "notes.txt" in refused(runner, place, (*FOLDERS[option], "notes.txt"), code=None)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("ask --out", "rows.json"),
        ("ask --out", "a.wav"),
        ("chat --log", "a.wav"),
        ("eval --answers", "rows.json"),
        ("eval --answers", "a.wav"),
        ("prepare check --out", "rows.json"),
        ("prepare combine --out", "rows.json"),
        ("prepare esc50 --out", "esc50/meta/esc50.csv"),
        ("prepare questions --out", "rows.json"),
        ("train plot --out", "run/metrics.jsonl"),
    ],
)
@pytest.mark.parametrize("way", ["as given", "absolute", "hard link"])
def test_an_input_is_never_written_over(runner: CliRunner, place: Path, option: str, given: str, way: str) -> None:
    name = {"as given": given, "absolute": str(place / given)}.get(way)
    if name is None:
        name = f"{Path(given).parent}/other{Path(given).suffix}"
        os.link(given, name)
    said = refused(runner, place, (*FILES[option], name))
    assert "would be overwritten" in said or "holds something else" in said


@pytest.mark.parametrize("more", [(), ("--resume",)])
@pytest.mark.parametrize("name", ["rows.json", "notes.txt", "a.wav", "run/metrics.jsonl"])
def test_ask_changes_nothing_that_holds_no_answers(
    runner: CliRunner, place: Path, name: str, more: tuple[str, ...]
) -> None:
    said = refused(runner, place, ("ask", "--manifest", "rows.json", "--out", name, *more))
    assert name in said
    (place / f"new.jsonl.partial{name.count('.')}").write_bytes((place / name).read_bytes())
    refused(runner, place, ("ask", "--manifest", "rows.json", "--out", "new.jsonl", "--resume"))


def test_a_manifest_beside_its_answers_is_no_partial_file(runner: CliRunner, place: Path) -> None:
    answered = {"row": 1, **ROW, "answer": "rain"}
    (place / "new.jsonl.partial").write_text(json.dumps(answered) + "\n")
    words = ("ask", "--manifest", "new.jsonl.partial", "--out", "new.jsonl", "--resume")
    assert "is an input of this command" in refused(runner, place, words)


def test_half_a_line_is_cut_off_when_all_has_been_read(runner: CliRunner, place: Path) -> None:
    part = place / "new.jsonl.partial"
    part.write_text('{"row": 1, "audio_id": "a.w')
    (place / "new.jsonl.partial2").write_text("something else\n")
    assert "partial2: holds something else" in refused(
        runner, place, ("ask", "--manifest", "rows.json", "--out", "new.jsonl", "--resume")
    )
    (place / "new.jsonl.partial2").unlink()
    done = runner.invoke(
        cli, ["ask", "--manifest", "rows.json", "--out", "new.jsonl", "--resume", "--max-new-tokens", "2"]
    )
    assert done.exit_code == 0
    (line,) = (place / "new.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 1
    assert sorted(p.name for p in place.glob("*new*")) == ["new.jsonl"]


@pytest.mark.parametrize("log", [b"notes\n", b"RIFF\0\0"])
def test_a_log_goes_on_with_logs_alone(runner: CliRunner, place: Path, log: bytes) -> None:
    (place / "log").write_bytes(log)
    said = refused(runner, place, ("chat", "--log", "log"))
    assert "log: holds something else than sessions" in said
    for _ in range(2):
        assert runner.invoke(cli, ["chat", "--log", "new"], input="").exit_code == 0
    assert [json.loads(line)["log"] for line in (place / "new").read_text().splitlines()] == ["gama-chat-log"] * 2


def test_clips_of_a_conversation_are_not_replaced_by_force(runner: CliRunner, place: Path) -> None:
    before = (place / "a.wav").read_bytes()
    (place / "a.md").symlink_to("a.wav")
    (place / "notes.md").write_text("mine\n")
    done = runner.invoke(cli, ["chat", "a.wav"], input="/save --force a.md\n/save notes.md\n/save b.md\n")
    assert "a.md: is an input of this command" in done.stderr
    assert "notes.md exists" in done.stderr
    assert (place / "a.wav").read_bytes() == before
    assert (place / "notes.md").read_text() == "mine\n"
    assert (place / "b.md").read_text().startswith("<!-- gama-chat")
    assert not list(place.glob("*.tmp")) + list(place.glob(".*"))


def test_prepare_audio_writes_no_manifest_over_itself(runner: CliRunner, place: Path) -> None:
    said = refused(runner, place, ("prepare", "audio", "rows.json", "--out", "."))
    assert "rows.json: is an input of this command" in said


def test_recordings_replace_no_manifest_of_anything_else(runner: CliRunner, place: Path) -> None:
    (place / "scenes").mkdir()
    (place / "scenes" / "manifest.json").write_text(json.dumps([ROW]))
    said = refused(runner, place, ("prepare", "real", "--audio-root", "esc50", "--out", "scenes"))
    assert "holds something else than real recordings" in said


# -- devices -----------------------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="devices as POSIX has them")


def run(place: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gama_cli.main", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, timeout=300, check=False)


@posix
def test_answers_to_a_device_are_written_through(place: Path) -> None:
    before = sorted(os.listdir("/dev"))
    words = ("ask", "--manifest", "rows.json", "--max-new-tokens", "2", "--out")
    done = run(place, *words, "/dev/stdout")
    assert done.returncode == 0
    assert json.loads(done.stdout)["row"] == 1
    assert run(place, *words, "/dev/null").returncode == 0
    full = run(place, *words, "/dev/full")
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(b"error: /dev/full: cannot be written: no space is left")
    for more in (("--resume",), ("--devices", "cpu")):
        assert b"/dev/null is a device" in run(place, *words, "/dev/null", *more).stderr
    assert sorted(os.listdir("/dev")) == before


@posix
@pytest.mark.parametrize("option", ["eval --answers", "prepare combine --out"])
def test_a_fifo_is_written_to_and_stays(place: Path, option: str) -> None:
    os.mkfifo(place / "fifo")
    more = ("--max-new-tokens", "2") if option.startswith("eval") else ()
    with subprocess.Popen(["cat", "fifo"], cwd=place, stdout=subprocess.PIPE) as reader:
        assert run(place, *FILES[option], "fifo", *more).returncode == 0
        assert reader.communicate(timeout=60)[0].startswith(b'{"clip"' if more else b"[")
    assert (place / "fifo").is_fifo()


@posix
def test_a_device_is_no_file_beside_which_others_lie(runner: CliRunner, place: Path) -> None:
    before = sorted(os.listdir("/dev"))
    assert "is a device" in refused(runner, place, (*FILES["prepare check --out"], "/dev/null"))
    assert "is a device" in refused(runner, place, (*FILES["prepare questions --out"], "/dev/null"))
    assert sorted(os.listdir("/dev")) == before


# -- stdout ------------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    "words", [("--help",), ("config",), ("recipes", "show", "mini"), ("ask", "a.wav", "q", "--max-new-tokens", "2")]
)
def test_a_full_or_closed_stdout_is_one_line(place: Path, words: tuple[str, ...]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    expected = {">/dev/full": "no space is left on the disk", ">&-": "it is closed"}
    for target, why in expected.items():
        command = ["sh", "-c", f'"$@" {target}', "sh", sys.executable, "-m", "gama_cli.main", *words]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: standard output: cannot be written: {why}")
        assert (done.returncode, done.stdout) == (1, "")


@posix
def test_a_full_stderr_costs_no_answer(place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["sh", "-c", '"$@" 2>/dev/full', "sh", sys.executable, "-m", "gama_cli.main"]
    done = subprocess.run([*command, "config"], cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()[0]) == (0, "KEY")
    done = subprocess.run([*command, "nothing"], cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1


# -- clips without permission ------------------------------------------------------------------------------------------


def test_a_clip_without_permission_costs_its_own_answer(
    runner: CliRunner, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(place / "b.wav", 0.1 * np.random.default_rng(1).standard_normal(8_000), 16_000)
    if os.geteuid():
        (place / "b.wav").chmod(0)
    else:  # root may read everything
        real = open

        def denied(file: Any, *how: Any, **more: Any) -> Any:
            if str(file) == "b.wav":
                raise PermissionError(13, "Permission denied", "b.wav")
            return real(file, *how, **more)

        monkeypatch.setattr("builtins.open", denied)
        monkeypatch.setattr(os, "access", lambda path, *_, **more: path != "b.wav")
    done = runner.invoke(cli, ["ask", "a.wav", "b.wav", "a.wav", "what happened?", "--max-new-tokens", "2"])
    assert done.exit_code == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["a.wav", "a.wav"]
    assert done.stderr == "error: b.wav: no permission to read it\n"
    done = runner.invoke(cli, ["chat", "a.wav", "b.wav"], input="what happened?\n")
    assert "b.wav: no permission to read it" in done.stderr
    assert done.stdout.strip()


# -- one module --------------------------------------------------------------------------------------------------------


def test_one_module_renames_files() -> None:
    """Whatever is written goes through gama.atomic; a download is renamed where it is checked."""
    allowed = {"gama/atomic.py", *(f"gama/hub/{name}.py" for name in ("hugging_face", "pull", "transfer"))}
    renames = {"replace", "rename", "renames", "link"}
    found = set()
    for package in (gama, gama_cli):
        for path in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in renames:
                    owner = node.value.id if isinstance(node.value, ast.Name) else ""
                    if owner == "os" or (node.attr == "rename" and owner != "os"):
                        found.add(str(path.relative_to(ROOT)))
                if isinstance(node, ast.Attribute) and ast.unparse(node) in ("shutil.move", "tempfile.mkstemp"):
                    found.add(str(path.relative_to(ROOT)))
    assert "gama/atomic.py" in found
    assert found <= allowed
