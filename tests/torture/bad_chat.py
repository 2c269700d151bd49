"""Seeded malformed requests to ``gama chat --json``: ``python tests/torture/bad_chat.py --seed 1 --count 500``.

One process gets every line. Between two of them stands a request that works, so that what came of each line is known:
it holds when there is one ``done``, an ``error`` of the kind ``user`` where nothing else can be right, no internal
error, and when the process ends with status 0 after the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIP = Path(__file__).resolve().parents[2] / "examples" / "dog_then_bells.flac"
PROGRAM = (sys.executable, "-m", "gama_cli.main")
SLOWEST = 300.0  # seconds of the whole process


@dataclass(frozen=True)
class Outcome:
    """What came of a battery.

    Attributes:
        tried: malformed lines.
        held: those that were answered as they have to be.
        failures: the others, a line each.
    """

    tried: int
    held: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A line of stdin.

    Attributes:
        content: its bytes, without the end.
        is_wrong: whether an error is the only right answer.
    """

    content: bytes
    is_wrong: bool


def run(seed: int, count: int, program: Sequence[str] = PROGRAM) -> Outcome:
    """Send ``count`` lines to one process."""
    chance = random.Random(seed)
    lines = [_line(chance) for _ in range(count)]
    sent = b"".join(line.content + b"\n" + _sentinel(number) + b"\n" for number, line in enumerate(lines))
    with tempfile.TemporaryDirectory(prefix="bad-chat-") as folder:
        environment = {**os.environ, "GAMA_HOME": folder, "HOME": folder}
        done = subprocess.run(
            [*program, "chat", "--json", str(CLIP)], input=sent, capture_output=True, cwd=folder, check=False,
            timeout=SLOWEST, env=environment,
        )  # fmt: skip
    failures = [f"line {n}: {what} after {lines[n].content[:200]!r}" for n, what in _judged(lines, done.stdout)]
    if done.returncode or b"Traceback" in done.stderr:
        failures.append(f"the process ended with status {done.returncode}: {done.stderr[-500:]!r}")
    return Outcome(count, max(0, count - len(failures)), tuple(failures))


def _sentinel(number: int) -> bytes:
    return json.dumps({"do": "line", "text": "/set seed", "id": f"sentinel {number}"}).encode()


def _judged(lines: Sequence[Line], stdout: bytes) -> list[tuple[int, str]]:
    """What is wrong with the answers to which lines."""
    answers: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(lines))}
    number = 0
    for text in stdout.splitlines():
        event = json.loads(text, parse_constant=_no_number)
        if event == {"event": "done", "id": f"sentinel {number}"}:
            number += 1
        elif event.get("id") != f"sentinel {number}" and number in answers:
            answers[number].append(event)
    found = [(n, "no answer") for n in range(number, len(lines))]
    return found + [(n, what) for n in range(number) for what in _faults(lines[n], answers[n])]


def _faults(line: Line, events: Sequence[dict[str, Any]]) -> list[str]:
    errors = [event for event in events if event["event"] == "error"]
    faults = [f"internal error {event['message'][:200]!r}" for event in errors if event["kind"] != "user"]
    faults += [f"an error of {len(event['message'])} characters" for event in errors if len(event["message"]) > 1000]
    ends = sum(event["event"] == "done" for event in events)
    if line.content.strip() and ends != 1:
        faults.append(f"{ends} done events")
    if line.is_wrong and not errors:
        faults.append(f"no error but {[event['event'] for event in events][:5]}")
    return faults


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# -- lines -------------------------------------------------------------------------------------------------------------

_NOT_JSON = [
    *(
        '{"do": "ask", "question": "hi", "id": NaN}',
        '{"do": "ask", "question": "hi", "id": 1e999}',
        "{",
        "]",
        '"',
        "'",
        "\\",
    ),
    *(
        '{"do": "attach", "path": "x", "from": Infinity}',
        '{"do": "ask" "question": "hi"}',
        "nul",
        "{'do': 'end'}",
        "\ufeff{}",
    ),
    *(
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"id": ' + "1" * 5000 + "}",
        "-",
        "01",
        "+1",
        "1.",
        "{} {}",
        '"\t"',
        '"\\x"',
        "undefined",
    ),
]
_NO_REQUESTS = [
    None,
    True,
    0,
    -1,
    1.5,
    "ask",
    "",
    [],
    [{}],
    {},
    {"do": None},
    {"do": []},
    {"do": "x"},
    {"do": "Ask"},
    {"do": {}},
]
_ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        10**30,
        1e300,
        -1e300,
        [],
        {},
        [[]],
        [None],
        {"a": 1},
        "",
        " ",
        "\0",
        "\ud800",
        "\udc80",
    ),
    *(
        "\n",
        "\x1b[2J",
        "~nosuchuser/x",
        "~",
        "/",
        "//",
        "file://[::1",
        "file://host/x",
        "x" * 5000,
        "@",
        "@all",
        "@x",
        "/" * 300,
    ),
    *(
        "..",
        "/dev/null",
        "/proc/self/mem",
        "/etc/passwd",
        "nul",
        "-",
        "--force",
        "a\0b.wav",
        "*",
        "é" * 2000,
        "\U0001f600",
    ),
]
_COMMANDS = [
    *(
        "audio",
        "clips",
        "drop",
        "play",
        "set",
        "system",
        "retry",
        "undo",
        "clear",
        "good",
        "bad",
        "save",
        "load",
        "stats",
        "help",
    ),
    *("export-manifest", "model", "nosuch", "", "../..", "\ud800", "x" * 3000),
]
_ARGUMENTS = [
    *(
        "",
        " ",
        "~nosuchuser/x",
        "\ud800",
        "\0",
        "nothing.json",
        "/dev/zero",
        "/",
        ".",
        "..",
        "'",
        '"',
        "\\",
        "--force",
        "x.md",
        "$",
    ),
    *(
        "temperature nan",
        "temperature 1e999",
        "temperature -1",
        "seed 9" + "9" * 5000,
        "seed -1",
        "top_k ²",
        "top_p 0",
        "memory x",
    ),
    *(
        "max_new_tokens 0",
        "max_new_tokens " + "9" * 30,
        "template x",
        "template \ud800",
        "repetition_penalty inf",
        "seed none",
    ),
    *(
        "nothing.wav 5-3",
        "nothing.wav " + "9" * 400 + ":00-",
        "nothing.wav as all",
        "nothing.wav as \ud800",
        f"{CLIP} 1-1",
    ),
    *(
        f"{CLIP} 5-",
        f"{CLIP} 5000-",
        f"{CLIP} as " + "n" * 2000,
        "nosuch",
        "@",
        "file://[",
        "file:///",
        "file://x/y",
        "dog-then-bells",
    ),
]


def _line(chance: random.Random) -> Line:
    kind = chance.randrange(10)
    if kind == 0:
        return Line(chance.choice(_NOT_JSON).encode("utf-8", "surrogatepass"), True)
    if kind == 1:
        return Line(b"\xff" + chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b" "), True)
    if kind == 2:
        return Line(_encoded(chance.choice(_NO_REQUESTS), chance), True)
    if kind == 3:
        return Line(b'{"do": "ask", "question": "' + b"x" * (2**20 + chance.randrange(2**20)) + b'"}', True)
    if kind == 4:
        return _cut(chance)
    if kind == 5:
        return Line(
            _encoded({"do": "line", "text": f"/{chance.choice(_COMMANDS)} {chance.choice(_ARGUMENTS)}"}, chance), False
        )
    return _odd_field(chance)


def _odd_field(chance: random.Random) -> Line:
    """A request in which a field, or two, hold something odd."""
    request: dict[str, Any] = chance.choice(
        [{"do": "ask", "question": "hi"}, {"do": "attach", "path": "nothing.wav"}, {"do": "attach", "path": str(CLIP)}]
    )
    fields = ["question", "clips"] if request["do"] == "ask" else ["path", "from", "to", "name"]
    for _ in range(chance.randrange(1, 3)):
        request = {**request, chance.choice([*fields, "id"]): chance.choice(_ODD)}
    is_wrong = chance.random() < 0.2
    if is_wrong:
        request["".join(chance.choices("abc\ud800\0é", k=5))] = chance.choice(_ODD)
    return Line(_encoded(request, chance), is_wrong)


def _cut(chance: random.Random) -> Line:
    """A request that lacks its end, or has a byte too much that no JSON has."""
    whole = json.dumps({"do": "ask", "question": "what happened?", "id": chance.randrange(100)}).encode()
    if chance.random() < 0.5:
        return Line(whole[: chance.randrange(1, len(whole))], True)
    at = chance.randrange(len(whole))
    return Line(whole[:at] + bytes([chance.randrange(1, 9)]) + whole[at:], True)


def _encoded(value: Any, chance: random.Random) -> bytes:
    return json.dumps(value, ensure_ascii=chance.random() < 0.8).encode("utf-8", "surrogatepass")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    found = run(options.seed, options.count)
    print(f"bad chat: {found.tried} tried, {found.held} held")
    for failure in found.failures:
        print(ascii(failure)[:1000])
    return 1 if found.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
