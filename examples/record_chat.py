"""Record a session of ``gama chat`` in a real terminal, as the picture in the README.

pip install -e '.[dev]'
python examples/record_chat.py docs/chat.svg
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

from gama.atomic import write_text

COLUMNS, ROWS = 66, 60
PATIENCE = 120  # seconds for one answer
PROMPT = ">>>"
CLIP = "dog_then_bells.flac"
LINES = (
    "what happened?",
    "is there a cat?",
    "/audio dog_then_bells.flac 5-10 as bells",
    "what is it?",
    "/good",
)


class Recording:
    """A terminal and what has been drawn on it."""

    def __init__(self, folder: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.Stream(self.screen)
        environment = {**os.environ, "TERM": "xterm-256color", "GAMA_HOME": str(folder), "PROMPT_TOOLKIT_NO_CPR": "1"}
        for name in ("NO_COLOR", "GAMA_MODEL"):
            environment.pop(name, None)
        self._child = pexpect.spawn(
            sys.executable,
            ["-m", "gama_cli.main", "chat", CLIP],
            cwd=Path(__file__).parent,
            env=environment,  # type: ignore[arg-type]
            dimensions=(ROWS, COLUMNS),
            encoding="utf-8",
        )

    def type(self, text: str) -> None:
        self._child.send(text)

    def until_prompts(self, count: int) -> None:
        """Draw until so many prompts stand on the screen, the last of them empty."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            lines = [line.rstrip() for line in self.screen.display if line.strip()]
            if sum(line.startswith(PROMPT) for line in lines) >= count and lines[-1] == PROMPT:
                return
            try:
                self._stream.feed(self._child.read_nonblocking(65536, timeout=0.3))
            except pexpect.TIMEOUT:
                continue
        raise SystemExit("the session did not go on:\n" + "\n".join(self.screen.display))

    def close(self) -> None:
        self._child.close(force=True)


def drawn(screen: pyte.Screen, title: str) -> str:
    """The screen as SVG."""
    lines = [_line(screen, row) for row in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    console = Console(width=COLUMNS, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {title}"))
    for line in lines[:-1]:  # the last prompt waits for nothing
        console.print(line, no_wrap=True, crop=True, end="\n")
    return console.export_svg(title="gama chat", unique_id="gama-chat")


def _line(screen: pyte.Screen, row: int) -> Text:
    """Neighbours that look the same are one piece, or the picture becomes large."""
    line = Text()
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    for (fg, bg, bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bg, cell.bold)):
        line.append("".join(cell.data for cell in run), Style(color=_colour(fg), bgcolor=_colour(bg), bold=bold))
    line.rstrip()
    return line


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    return f"#{name}" if len(name) == 6 and all(c in "0123456789abcdef" for c in name) else name


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/chat.svg")
    with tempfile.TemporaryDirectory() as folder:
        recording = Recording(Path(folder))
        recording.until_prompts(1)
        for count, line in enumerate(LINES, 2):
            recording.type(line + "\r")
            recording.until_prompts(count)
        recording.close()
    write_text(target, drawn(recording.screen, f"gama chat {CLIP}"))


if __name__ == "__main__":
    main()
