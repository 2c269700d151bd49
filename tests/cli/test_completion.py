"""Shells complete commands, options, values and files: asked of the program, and of the shells that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gama_cli.completion import SHELLS, VARIABLE
from gama_cli.main import cli


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program ``gama``, and the completion script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    program = folder / "gama"
    program.write_text(f"#!{sys.executable}\nfrom gama_cli.main import main\nmain()\n")
    program.chmod(0o755)
    for shell in SHELLS:
        result = CliRunner().invoke(cli, ["completion", shell])
        assert result.exit_code == 0 and VARIABLE in result.stdout
        (folder / f"gama.{shell}").write_text(result.stdout)
    return folder


def run(command: list[str], folder: Path, **variables: str) -> str:
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gama ch", {"chat"}),
        ("gama con", {"config", "convert"}),
        ("gama chat --mem", {"--memory"}),
        ("gama config set mo", {"model"}),
        ("gama completion ", set(SHELLS)),
    ],
)
def test_what_the_program_answers(words: str, expected: set[str]) -> None:
    result = CliRunner().invoke(
        cli,
        [],
        prog_name="gama",
        env={VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    )
    found = {line.partition(",")[2] for line in result.stdout.splitlines()}
    assert expected <= found and len(found) <= len(expected) + 1


def test_bash(scripts: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    (scripts / "clip.wav").touch()
    script = f"""
        source {scripts}/gama.bash; cd {scripts}
        complete -p gama
        COMP_WORDS=(gama ch); COMP_CWORD=1; _gama_completion gama; echo "first ${{COMPREPLY[*]}}"
        COMP_WORDS=(gama chat --memory ""); COMP_CWORD=3; COMPREPLY=(); _gama_completion gama
        echo "then ${{COMPREPLY[*]}}"
    """
    lines = run([bash, "--norc", "-c", script], scripts).splitlines()
    assert "_gama_completion gama" in lines[0] and lines[1:] == ["first chat", "then full last none"]


def test_zsh(scripts: Path) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("no zsh here")
    # compadd and _describe would draw on a terminal: they print what they are given instead
    script = f"""
        compdef() {{ echo "compdef $@" }}
        compadd() {{ :; }}
        _describe() {{ eval "print -l \\$$3" }}
        source {scripts}/gama.zsh
        words=(gama ch); CURRENT=2; _gama_completion
    """
    text = run([zsh, "-f", "-c", script], scripts)
    assert text.startswith("compdef _gama_completion gama") and "chat:Talk about CLIPs" in text


def test_fish(scripts: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("no fish here")
    text = run([fish, "--no-config", "-c", f"source {scripts}/gama.fish; complete -C 'gama ch'"], scripts)
    assert text.splitlines()[0].split("\t")[0] == "chat"


def test_the_shell_in_use(runner: CliRunner) -> None:
    named = runner.invoke(cli, ["completion", "fish"]).stdout
    assert runner.invoke(cli, ["completion"], env={"SHELL": "/usr/local/bin/fish"}).stdout == named
    result = runner.invoke(cli, ["completion"], env={"SHELL": "/bin/tcsh"})
    assert result.exit_code == 2 and "tcsh" in result.stderr and "bash, zsh, fish" in result.stderr
