"""What the command line says about clips: levels that were never scaled, names that begin with a dash, URLs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from gama.data.clips import clip_facts
from gama.data.remap import Remap
from gama_cli.main import cli


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    samples = 0.3 * np.sin(np.arange(16_000) * 0.1)
    soundfile.write(tmp_path / "good.wav", samples, 16_000)
    soundfile.write(tmp_path / "loud.wav", samples * 30_000, 16_000, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["ask", *words])
    return done.exit_code, done.stdout, done.stderr


def test_samples_far_above_full_scale_are_warned_of(folder: Path) -> None:
    line = "warning: loud.wav: its samples reach 79 dB above full scale, [-1, 1] was expected\n"
    status, _, errors = ask("loud.wav", "what?", "--max-new-tokens", "2")
    assert (status, errors) == (0, line)
    status, out, errors = ask("good.wav", "loud.wav", "what?", "--json", "--max-new-tokens", "2")
    assert (status, errors) == (0, line)
    assert [json.loads(row)["over_range"] for row in out.splitlines()] == [False, True]


@pytest.mark.parametrize("out", [(), ("--out", "answers.jsonl")], ids=["stream", "file"])
def test_a_manifest_warns_once_of_each_clip(folder: Path, out: tuple[str, ...]) -> None:
    rows = [{"audio_id": name, "instruction": q} for name in ("good.wav", "loud.wav") for q in ("what?", "a dog?")]
    Path("rows.json").write_text(json.dumps(rows))
    status, _, errors = ask("--manifest", "rows.json", *out, "--max-new-tokens", "2")
    assert status == 0
    assert [line for line in errors.splitlines() if line.startswith("warning")] == [
        f"warning: {folder / 'loud.wav' if errors.count(str(folder)) else 'loud.wav'}: "
        "its samples reach 79 dB above full scale, [-1, 1] was expected"
    ]


def test_prepare_audio_says_what_a_url_is(folder: Path) -> None:
    Path("rows.json").write_text(json.dumps([{"audio_id": "https://host/a.wav", "instruction": "q", "output": "a"}]))
    done = CliRunner().invoke(cli, ["prepare", "audio", "rows.json", "--out", "out"])
    assert "is a URL, the path of a file was expected" in done.stderr


def test_a_file_url_is_opened(folder: Path) -> None:
    status, out, errors = ask((folder / "good.wav").as_uri(), "what?", "--max-new-tokens", "2")
    assert (status, errors) == (0, "") and out.strip()


def test_a_name_that_begins_with_a_dash(folder: Path) -> None:
    for name in ("-clip.flac", "-x"):
        (folder / "-x").touch()
        status, _, errors = ask(name, "what?")
        expected = f"{name!r} begins with a dash and is read as options: give ./{name}, or put -- before the clips"
        assert (status, errors) == (2, f"error: {expected}\n")
    assert "no such option '--nope'" in ask("good.wav", "what?", "--nope")[2]
    assert ask("--", "-clip.flac", "what?")[2] == "error: -clip.flac: no such file\n"


def test_a_url_in_a_manifest(folder: Path) -> None:
    clip = Remap(root=Path("sc")).file("https://example.org/a.wav", folder / "rows.json")
    assert clip is not None
    assert clip_facts(clip).detail.endswith("is a URL, the path of a file was expected")
    row = {"audio_id": "https://example.org/a.wav", "instruction": "what?", "output": "x"}
    (folder / "rows.json").write_text(json.dumps([row]))
    status, out, _ = ask("--manifest", "rows.json")
    assert status == 1
    assert json.loads(out.splitlines()[0])["error"].startswith("https://example.org/a.wav: is a URL")
