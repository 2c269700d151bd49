"""The group: help from the table, and one line with the right exit status for every way to fail."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner, Result

from gama import __version__
from gama.errors import AudioError
from gama_cli import main as main_module
from gama_cli.main import SECTIONS, CommandEntry, cli


class Probe:
    """A command ``probe`` in the table that raises what it is told to."""

    def __init__(self, runner: CliRunner) -> None:
        self.runner = runner
        self.error: BaseException | None = None

    def __call__(self, *words: str, raising: BaseException | None = None) -> Result:
        self.error = raising
        return self.runner.invoke(cli, ["probe", *words])


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch, runner: CliRunner) -> Probe:
    made = Probe(runner)

    @click.command()
    @click.argument("words", nargs=-1)
    def command(words: tuple[str, ...]) -> None:
        click.echo(" ".join(words))
        if made.error is not None:
            raise made.error

    module = ModuleType("probe_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SECTIONS, "Probe", {"probe": CommandEntry(module.__name__, "command", "Probe the errors.")})
    return made


def one_line(text: str) -> str:
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.rstrip("\n")


def test_help_shows_every_command_under_its_section(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["-h"])
    assert result.exit_code == 0
    for title, section in SECTIONS.items():
        assert f"{title}:" in result.stdout
        for name, entry in section.items():
            assert f"  {name} " in result.stdout
            assert entry.help in result.stdout
    assert 'gama ask clip.wav "what happened?"' in result.stdout
    assert result.stdout == runner.invoke(cli, ["--help"]).stdout


def test_help_fits_the_terminal(runner: CliRunner) -> None:
    assert max(map(len, runner.invoke(cli, ["--help"]).stdout.splitlines())) <= 80


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(cli, ["--version"]).stdout == f"gama {__version__}\n"


def test_no_arguments_is_a_usage_error_that_shows_help(runner: CliRunner) -> None:
    result = runner.invoke(cli, [])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: gama" in result.stderr.replace("cli", "gama")


def test_wrong_command_suggests_the_nearest(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["aks", "clip.wav"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert one_line(result.stderr).startswith("error: no command 'aks'; did you mean 'ask'?")


def test_forgotten_ask_is_named(runner: CliRunner, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.touch()
    result = runner.invoke(cli, [str(clip), "what happened?"])
    assert result.exit_code == 2
    assert f"gama ask {clip} QUESTION" in one_line(result.stderr)


def test_unknown_command_lists_the_commands(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["zzzzzz"])
    assert result.exit_code == 2
    assert "ask, chat, prepare, train, plan, recipes, eval" in one_line(result.stderr)


def test_usage_error_is_one_line_with_the_help_to_read(probe: Probe) -> None:
    result = probe("--nope")
    assert result.exit_code == 2
    line = one_line(result.stderr)
    assert line.startswith("error: no such option '--nope'")
    assert line.endswith("probe --help)")


def test_success(probe: Probe) -> None:
    result = probe("a", "b")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a b\n", "")


def test_own_error_is_one_line(probe: Probe) -> None:
    result = probe(raising=AudioError("'a.wav' holds no sound", "record it again"))
    assert result.exit_code == 1
    assert result.stderr == "error: 'a.wav' holds no sound (record it again)\n"


def test_control_characters_of_a_message_are_shown_not_sent(probe: Probe) -> None:
    result = probe(raising=AudioError("'a\x1b[31m\nb.wav' holds no sound"))
    assert "\x1b" not in result.stderr
    assert one_line(result.stderr).startswith("error: 'a")


def test_other_error_is_internal(probe: Probe) -> None:
    result = probe(raising=ValueError("7 is\nodd"))
    assert result.exit_code == 1
    expected = "internal error: ValueError: 7 is odd (run again with --debug to see where)\n"
    assert result.stderr == expected


def test_file_that_cannot_be_opened_is_not_internal(probe: Probe) -> None:
    result = probe(raising=PermissionError(13, "Permission denied", "/out/manifest.json"))
    assert result.exit_code == 1
    assert result.stderr == "error: Permission denied: /out/manifest.json\n"


def test_unexpected_end_of_file_is_internal(probe: Probe) -> None:
    result = probe(raising=EOFError("Ran out of input"))
    assert result.exit_code == 1
    assert "internal error: EOFError: Ran out of input" in result.stderr


def test_interrupt(probe: Probe) -> None:
    result = probe(raising=KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr.strip() == ""


def test_abort(probe: Probe) -> None:
    assert probe(raising=click.Abort()).exit_code == 130


@pytest.mark.parametrize("status", [0, 1, 3])
def test_exit_status_of_a_command(probe: Probe, status: int) -> None:
    assert probe(raising=click.exceptions.Exit(status)).exit_code == status


@pytest.mark.parametrize("words", [["--debug", "probe"], ["probe", "--debug"]], ids=["before", "after"])
def test_debug_shows_the_traceback(probe: Probe, words: list[str]) -> None:
    probe.error = AudioError("no sound")
    result = probe.runner.invoke(cli, words)
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("error: no sound\n")


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_debug_by_environment(probe: Probe, monkeypatch: pytest.MonkeyPatch, value: str, shown: bool) -> None:
    monkeypatch.setenv("GAMA_DEBUG", value)
    assert ("Traceback" in probe(raising=AudioError("no sound")).stderr) == shown


def test_debug_after_two_dashes_is_a_word(probe: Probe) -> None:
    result = probe("--", "--debug", raising=AudioError("no sound"))
    assert result.stdout == "--debug\n"
    assert "Traceback" not in result.stderr


def test_embedded_in_python_errors_pass_through(probe: Probe) -> None:
    probe.error = AudioError("no sound")
    with pytest.raises(AudioError):
        cli(["probe"], standalone_mode=False)


@pytest.fixture
def own_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the entry point does to signals is undone: the tests keep their own Ctrl-C."""
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


@pytest.mark.usefixtures("own_signals")
def test_main_runs_the_group(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gama", "--version"])
    with pytest.raises(SystemExit) as stop:
        main_module.main()
    assert not stop.value.code
    assert capsys.readouterr().out == f"gama {__version__}\n"


def test_closed_pipe_is_quiet() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(); from gama_cli.main import main; main()", "--help"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()  # nobody reads the help that starts once stdin ends
    process.stdin.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert errors == b""
