"""Defaults come from the command line, then the environment, then the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from gama import home as home_module
from gama_cli.config import KEYS, _options, path
from gama_cli.main import SECTIONS, CommandEntry, cli
from gama_cli.options import model_options
from gama_cli.sampling_options import generation_options

Run = Callable[..., Result]


@pytest.fixture
def run(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    return lambda *words: runner.invoke(cli, list(words))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command ``ask`` that prints its options."""

    @click.command()
    @model_options
    @generation_options
    def command(**options: object) -> None:
        click.echo(json.dumps(options))

    module = ModuleType("asked_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SECTIONS["Ask"], "ask", CommandEntry(module.__name__, "command", "Print the options."))


def refused(result: Result) -> str:
    assert result.exit_code == 1 and result.stdout == "" and result.stderr.startswith("error: ")
    return result.stderr


def test_where_the_home_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GAMA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert home_module.home() == tmp_path / ".config" / "gama"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    assert home_module.home() == tmp_path / "settings" / "gama"
    monkeypatch.setenv("GAMA_HOME", "~/mine")
    assert home_module.home() == tmp_path / "mine"


def test_set_get_unset(run: Run) -> None:
    assert run("config", "get", "temperature").exit_code == 1
    assert run("config", "set", "temperature", "0.3").exit_code == 0
    assert run("config", "set", "model", 'a "b" \\ü\x7f').exit_code == 0
    assert run("config", "set", "picture", "no").exit_code == 0
    assert run("config", "set", "temperature", "0.5").exit_code == 0
    assert tomllib.loads(path().read_text(encoding="utf-8")) == {
        "model": 'a "b" \\ü\x7f', "picture": False, "temperature": 0.5,
    }  # fmt: skip
    assert run("config", "get", "temperature").stdout == "0.5\n"
    assert run("config", "unset", "temperature").exit_code == 0
    assert run("config", "get", "temperature").exit_code == 1
    assert run("config", "path").stdout == f"{path()}\n"
    assert [file.name for file in path().parent.iterdir()] == ["config.toml"]


def test_comments_stay(run: Run) -> None:
    path().parent.mkdir()
    path().write_text("# mine\nseed = 7  # luck\n\ntop_p = 0.9\n")
    run("config", "set", "temperature", "1")
    run("config", "unset", "seed")
    assert path().read_text() == "# mine\n\ntop_p = 0.9\ntemperature = 1.0\n"


def test_the_order_of_defaults(run: Run, asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def options(*words: str) -> dict[str, object]:
        return dict(json.loads(run("ask", *words).stdout))

    assert options()["model"] is None and options()["temperature"] == 0.0
    run("config", "set", "model", "from-file")
    run("config", "set", "temperature", "0.3")
    assert (options()["model"], options()["temperature"]) == ("from-file", 0.3)
    monkeypatch.setenv("GAMA_MODEL", "from-environment")
    assert options()["model"] == "from-environment"
    assert options("--model", "given", "--temperature", "1")["model"] == "given"
    assert options("--temperature", "1")["temperature"] == 1.0


def test_the_list_says_where_a_value_comes_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("config", "set", "temperature", "0.3")
    monkeypatch.setenv("GAMA_MODEL", "mine")
    rows = {row["key"]: row for row in map(json.loads, run("config", "--json").stdout.splitlines())}
    assert list(rows) == list(KEYS)
    assert rows["temperature"] == {"key": "temperature", "value": 0.3, "from": str(path())}
    assert rows["model"] == {"key": "model", "value": "mine", "from": "GAMA_MODEL"}
    assert rows["top_p"] == {"key": "top_p", "value": 1.0, "from": "default"} and rows["seed"]["value"] is None
    assert "temperature" in run("config").stdout


def test_every_key_is_an_option() -> None:
    assert set(_options()) == set(KEYS)


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", "warm"), ("temperature", "-1"), ("quant", "3bit"), ("memory", "some"), ("picture", "perhaps"),
     ("channel", "left"), ("seed", "1.5")],
)  # fmt: skip
def test_a_wrong_value_is_refused(run: Run, key: str, value: str) -> None:
    assert key in refused(run("config", "set", "--", key, value))
    assert not path().exists()


def test_an_unknown_key_is_refused(run: Run) -> None:
    result = run("config", "set", "colour", "red")
    assert result.exit_code == 2 and "colour" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [("model = ", "not TOML"), ("colour = 1", "no key 'colour'"), ("temperature = 'x'", "temperature"),
     ("model = ['a']", "model is list"), ("model = \"\xff\"", "not TOML"),
     ("a = " + "{b=" * 3000, "not TOML"), ("x = " + "9" * 6000, "not TOML: Exceeds the limit"),
     ("#" * 70_000, "is larger than 64 KiB")],
)  # fmt: skip
def test_a_broken_file_is_named_and_can_be_mended(run: Run, asked: None, content: str, message: str) -> None:
    path().parent.mkdir()
    path().write_bytes(content.encode("latin-1"))
    error = refused(run("ask"))
    assert message in error and str(path()) in error
    assert run("--help").exit_code == 0 and run("config", "path").exit_code == 0
    assert run("completion", "bash").exit_code == 0


def test_parallel_changes_are_all_kept(tmp_path: Path) -> None:
    """Each process reads the file, changes a line and writes it: without a lock some changes are lost."""
    home = tmp_path / "home"
    keys = {"seed": "1", "top_k": "2", "batch_size": "3", "threads": "4", "max_new_tokens": "5", "temperature": "0.5"}
    environment = {**os.environ, "GAMA_HOME": str(home), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "gama_cli.main", "config", "set"]
    running = [subprocess.Popen([*command, key, value], env=environment) for key, value in keys.items()]
    assert [process.wait(120) for process in running] == [0] * len(keys)
    written = tomllib.loads((home / "config.toml").read_text())
    assert written == {key: float(value) if "." in value else int(value) for key, value in keys.items()}
    assert [path.name for path in home.iterdir()] == ["config.toml"]
