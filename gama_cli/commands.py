"""The click group, its table of commands, and how errors reach the terminal."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gama import __version__, interrupts
from gama.errors import GamaError
from gama.packages import missing_package
from gama_cli import console
from gama_cli.streams import STDOUT, let_go


@dataclass(frozen=True)
class CommandEntry:
    """A command that is imported when it runs.

    Args:
        module: where it lives.
        attribute: its name there.
        help: the line that ``gama --help`` shows.
    """

    module: str
    attribute: str
    help: str


SECTIONS: dict[str, dict[str, CommandEntry]] = {
    "Ask": {
        "ask": CommandEntry("gama_cli.ask", "ask", "Ask a question about one clip or many."),
        "chat": CommandEntry("gama_cli.chat", "chat", "Talk about clips: question after question."),
    },
    "Train": {
        "prepare": CommandEntry("gama_cli.prepare", "prepare", "Make, check and convert training data."),
        "train": CommandEntry("gama_cli.train", "train", "Run one stage of a recipe."),
        "plan": CommandEntry("gama_cli.plan", "plan", "Say what training a recipe will take."),
        "recipes": CommandEntry("gama_cli.recipes", "recipes", "List, show or copy the packaged recipes."),
    },
    "Measure": {
        "eval": CommandEntry("gama_cli.eval", "evaluate", "Answer a manifest and score the answers."),
        "bench": CommandEntry("gama_cli.bench", "bench", "Time each stage of an answer against its limit."),
    },
    "Checkpoints": {
        "pull": CommandEntry("gama_cli.pull", "pull", "Fetch a named model, checked."),
        "models": CommandEntry("gama_cli.models", "models", "List the models on this disk, or remove one."),
        "inspect": CommandEntry("gama_cli.inspect", "inspect", "Say what a checkpoint is and what it lacks."),
        "export": CommandEntry("gama_cli.export", "export", "Write ONNX graphs, a peft adapter or merged weights."),
        "convert": CommandEntry("gama_cli.convert", "convert", "Make a model folder of released checkpoints."),
        "quantize": CommandEntry("gama_cli.quantize", "quantize", "Store a model's language model in 4 or 8 bits."),
    },
    "This machine": {
        "config": CommandEntry("gama_cli.config", "config", "Show or change the defaults of options."),
        "completion": CommandEntry("gama_cli.completion", "completion", "Print what makes a shell complete."),
        "doctor": CommandEntry("gama_cli.doctor", "doctor", "Say what works here, and what mends the rest."),
    },
}

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.EROFS}


class LazyGroup(click.Group):
    """A group that shows its help from the table and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in SECTIONS.values():
            if cmd_name in section:
                entry = section[cmd_name]
                command: click.Command = getattr(importlib.import_module(entry.module), entry.attribute)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in section.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        given = args[0]
        names = self.list_commands(ctx)
        if given not in names and not given.startswith("-"):
            ctx.fail(_unknown_command(given, names))
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        words, debug = take_debug(sys.argv[1:] if args is None else list(args))
        before = os.environ.get("GAMA_DEBUG")
        if debug:
            os.environ["GAMA_DEBUG"] = "1"  # the errors of single rows, in this process and in those it starts
        try:
            status = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as error:
            if interrupts.pending():  # whatever it says, the signal is why
                raise SystemExit(interrupts.status()) from error
            try:
                if debug:
                    traceback.print_exception(error)
                status = _report(error, words)
            except OSError:  # the error cannot be told, for stderr is what cannot be written
                let_go(sys.stderr)
                status = 1
        finally:
            if debug and before is None:
                del os.environ["GAMA_DEBUG"]
        raise SystemExit(status if isinstance(status, int) else 0)


def take_debug(words: list[str]) -> tuple[list[str], bool]:
    """The words without ``--debug``, which may stand before or after the command, and whether to show tracebacks."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    debug = len(kept) < end or os.environ.get("GAMA_DEBUG", "0") not in ("", "0")
    return kept + words[end:], debug


def _unknown_command(given: str, names: list[str]) -> str:
    near = difflib.get_close_matches(given, names, n=1)
    if near:
        return f"no command {given!r}; did you mean {near[0]!r}?"
    if Path(given).exists():
        return f"no command {given!r}, but a file of that name: ask about it with 'gama ask {given} QUESTION'"
    return f"no command {given!r}; there are: {', '.join(names)}"


def _report(error: Exception, words: Sequence[str] = ()) -> int:
    """Print one line for the error that ``words`` led to and return the exit status."""
    if isinstance(error, click.Abort) and not isinstance(error.__cause__, EOFError):
        return interrupts.INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        console.fail(_dashed_file(error, words) or _with_help_command(error))
        return error.exit_code
    if isinstance(error, GamaError):
        console.fail(str(error))
        return 1
    if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)) is not None:
        console.fail(str(missing))
        return 1
    if isinstance(error, OSError) and (text := _text_of(error)):
        console.fail(text)
        return 1
    # click turns an EOFError into an Abort; an unexpected end of some file is not a wish to stop
    cause = error.__cause__ if isinstance(error, click.Abort) and error.__cause__ else error
    text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
    console.fail(f"{' '.join(text.split())} (run again with --debug to see where)", label="internal error")
    return 1


def _text_of(error: OSError) -> str | None:
    """What a system's error is about: the file it names, stdout, or the disk; None where it does not say."""
    from gama.atomic import output_error

    if error.filename == STDOUT:
        let_go(sys.stdout)
        return str(output_error(STDOUT, error))
    if error.filename is not None:
        return f"{error.strerror or type(error).__name__}: {os.fsdecode(error.filename)}"
    return str(output_error("a file", error)) if error.errno in _FULL else None


def _dashed_file(error: click.ClickException, words: Sequence[str]) -> str | None:
    """What to do about a file whose name begins with a dash and was read as options; None where none was given."""
    if not isinstance(error, click.NoSuchOption):
        return None
    for word in words[: words.index("--") if "--" in words else None]:
        if word.startswith(error.option_name[:2]) and (os.path.exists(word) or _is_file_name(word)):
            return f"{word!r} begins with a dash and is read as options: give ./{word}, or put -- before the clips"
    return None


def _is_file_name(word: str) -> bool:
    suffix = Path(word).suffix
    return not word.startswith("--") and "=" not in word and 3 <= len(suffix) <= 6 and suffix[1:].isalnum()


def _with_help_command(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message[:1].lower() + message[1:]
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message} (see {error.ctx.command_path} --help)"
    return message


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND …",
)
@click.version_option(__version__, "--version", prog_name="gama", message="%(prog)s %(version)s")
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    help="Show the traceback of an error; may stand after the command, too. GAMA_DEBUG=1 does the same.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Ask a sound what happened.

    \b
    Examples:
      gama ask clip.wav "what happened?"
      gama ask *.flac "is there a dog?" --json
      gama chat clip.wav
      gama prepare scenes --count 1000 --seed 1 --out scenes
      gama train --recipe mini --stage 1
    """
    from gama_cli.config import defaults

    ctx.default_map = defaults(ctx.invoked_subcommand)
