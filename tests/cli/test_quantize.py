"""``gama quantize`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gama_cli.main import cli


def test_a_folder_is_written_and_asked(runner: CliRunner, tmp_path: Path) -> None:
    out = tmp_path / "mini4"
    done = runner.invoke(cli, ["quantize", "mini", "-o", str(out), "--json"])
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["folder"] == str(out) and facts["quantization"] == "4bit" and facts["written"] < facts["read"]
    question = ["--text-only", "what happened?", "--json", "--max-new-tokens", "4"]
    stored = json.loads(runner.invoke(cli, ["ask", *question, "--model", str(out)]).stdout)
    while_loading = json.loads(runner.invoke(cli, ["ask", *question, "--quant", "4bit"]).stdout)
    assert stored["answer"] == while_loading["answer"]
    assert stored["model"]["quantization"] == "4bit" == while_loading["model"]["quantization"]
    assert stored["model"]["weight_bytes"] == while_loading["model"]["weight_bytes"] > 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nowhere"], 1, "no model 'nowhere'"),
        (["mini", "--quant", "3bit"], 2, "'3bit' is not one of"),
        (["mini", "--quant", "gptq"], 2, "gptq needs --calibration"),
        (["mini", "--calibration", __file__], 2, "nothing else takes it"),
    ],
)
def test_bad_input(runner: CliRunner, tmp_path: Path, words: list[str], status: int, message: str) -> None:
    done = runner.invoke(cli, ["quantize", *words, "-o", str(tmp_path / "out")])
    assert done.exit_code == status and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
    assert list(tmp_path.iterdir()) == []
