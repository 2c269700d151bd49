"""Damaged text files of every kind through their readers: ``python tests/torture/bad_text.py --seed 1 --count 400``.

Recipes, mixtures, tables, manifests, transcripts, settings and the texts of a checkpoint are mutated (bytes, structure,
encodings, bombs) and read by a worker process whose memory and time are bounded. What holds: a file is read, or
refused by an error for users of one line. Anything else is a failure, named by the exception.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 60.0  # for one file, on a machine with other work; a quiet one takes a tenth
START = 600.0  # for the imports of the worker
MEMORY = 2**30  # bytes beyond what the imports take
LONGEST = 2000  # characters of a message
ROOT = Path(__file__).resolve().parents[2]

ROW = {"audio_id": "a.wav", "instruction": "What?", "output": "A dog.", "input": "", "task": "cla", "fold": 1}
EVENT = {"label": "dog", "start": 0.5, "end": 1.0, "count": 1, "level_db": -20.0, "centroid_hz": 900.0, "onsets": [0.5]}
CHECK = {"kind": "word", "key": "yes", "choices": ["yes", "no"], "form": "is it"}
SCENE = ROW | {"events": [EVENT], "duration": 2.0, "noise": False, "check": CHECK}

RECIPE: dict[str, Any] = {
    "name": "x",
    "objective": "answer",
    "starts_from": {"audio_tower": "a", "language_model": "b"},
    "otherwise": "mini",
    "model": {"text_config": {"vocab_size": 900, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}},
    "trainable": ["qformer", "projectors"],
    "lora": {"r": 2, "alpha": 4, "dropout": 0.1, "target_modules": ["q_proj"]},
    "data": {"manifests": ["a.json"], "folds": [1], "tasks": ["what"], "questions": 2, "validation": 0.1},
    "loss": {"train_on_inputs": True, "key_weight": 2.0},
    "per_device_train_batch_size": 2,
    "learning_rate": 0.001,
    "max_steps": 3,
    "lr_scheduler_kwargs": {"a": 1},
}
TABLE: dict[str, Any] = {
    "a": {"summary": "s", "license": "l", "hub": {"repo": "o/n", "files": ["*"], "sha256": {"f": "0" * 64}}, "size": 3},
    "b": {"summary": "s", "license": "l", "urls": [{"url": "https://x/y", "name": "y", "size": 1, "sha256": None}]},
}
MIXTURE: dict[str, Any] = {"stage1": [{"set": "a", "repeats": 2, "tasks": ["cla"]}, {"set": "b"}]}
SETS: dict[str, Any] = {"scenes": {"count": 5, "seed": 2, "recordings": "real"}, "recordings": ["real"]}
TRANSCRIPT: dict[str, Any] = {
    "format": "gama-chat",
    "version": 1,
    "settings": {"max_new_tokens": 5, "temperature": 0.0, "seed": None, "memory": "full"},
    "system": "",
    "focus": [],
    "clips": [],
    "turns": [],
}

_CSV = "filename,fold,target,category,start\n1-1-A-0.wav,1,0,dog,0.5\n1-2-A-0.wav,2,1,rain,1.5\n"
_TOML = 'model = "mini"\ntemperature = 0.3\nmax_new_tokens = 20\nchannel = "mix"\n# mine\n'

ODD: list[Any] = [
    *(None, True, False, -1, 0, 2**31, 2**63, 2**64, -(2**70), 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "\n", "\0", "\ud83d", "\udcff", "\u202e", "null", "1e999", "-", "../../x", "a" * 5000, "9" * 5000),
    *([], {}, [[]], [None], {"a": None}, {"": 1}, [1] * 3000, {"k" * 300: {"k": []}}, [{"a": [{"b": [{}]}]}]),
]
TOKENS = [
    *("[", "]", "{", "}", ":", ",", '"', "'", "\\", "\n", "\t", "\r", "&a ", "*a", "<<: *a", "? ", "- ", "| "),
    *("!!python/name:os.system ", "!!binary aGk=", "--- ", "...", "%YAML 9.9\n", "\\ud83d", "\\u0000", "\x00"),
    *("> ", "#", "!", "\x1b[2J"),
    *("NaN", "Infinity", "-Infinity", "1e999", "0x" + "f" * 6000, "9" * 6000, "1_0", "0b_", "2001-99-99", ".inf", "~"),
    *("\ufeff", "\u2028", "\u202e", "=", ",,,,", '"""', "'''", "[[a]]", "[a.b]\n"),
]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: of the kind.
        file: name that its reader expects.
        text: a good one.
        value: what it says, where it is made of plain values.
        dump: writes such values.
    """

    name: str
    file: str
    text: str
    value: Any = None
    dump: Callable[[Any], str] | None = None


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _lines(value: Any) -> str:
    rows = value if isinstance(value, list) else [value]
    return "".join(json.dumps(row) + "\n" for row in rows)


def kinds() -> list[Kind]:
    """All kinds of files, each with a good one."""

    def of(name: str, file: str, value: Any, dump: Callable[[Any], str]) -> Kind:
        return Kind(name, file, dump(value), value, dump)

    state = {"global_step": 3, "log_history": [{"step": 3, "loss": 1.0}]}
    return [
        of("recipe", "stage1.yaml", RECIPE, _yaml),
        of("scene sets", "data.yaml", SETS, _yaml),
        of("mixture", "mixture.yaml", MIXTURE, _yaml),
        of("models", "models.yaml", TABLE, _yaml),
        of("manifest", "rows.json", [ROW, SCENE, ROW], json.dumps),
        of("manifest lines", "rows.jsonl", [ROW, SCENE, ROW], _lines),
        of("questions", "questions.json", [ROW, ROW | {"input": "x"}], json.dumps),
        of("scored", "scored.json", [SCENE], json.dumps),
        of("mixed", "mixed.json", [ROW | {"split": "train"}], json.dumps),
        of("answers", "answers.jsonl", [{"row": 1, "audio_id": "a", "instruction": "q", "answer": "x"}], _lines),
        of("transcript", "chat.json", TRANSCRIPT, json.dumps),
        of("checkpoint", "files.json", {"trainer_state.json": [2, 1], "training.safetensors": [0, 0]}, json.dumps),
        of("state", "trainer_state.json", state, json.dumps),
        of("metrics", "metrics.jsonl", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], _lines),
        of("reply", "reply.txt", [{"question": "q", "answer": "a", "topic": "t"}], json.dumps),
        Kind("table", "esc50.csv", _CSV),
        Kind("settings", "config.toml", _TOML),
    ]


# -- damage ------------------------------------------------------------------------------------------------------------


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in _paths(each, (*path, key)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {k: _replaced(v, rest, new) if k == key else v for k, v in value.items()}
    return [_replaced(v, rest, new) if i == key else v for i, v in enumerate(value)]


def _structure(kind: Kind, chance: random.Random) -> bytes:
    """A value in the place of another, or a key too many or too few."""
    value = kind.value
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        value = _replaced(value, chance.choice(_paths(value)), chance.choice(ODD))
    assert kind.dump is not None
    try:
        return kind.dump(value).encode("utf-8", "surrogatepass")
    except ValueError:  # an integer of more digits than Python writes: as JSON would hold it
        return kind.text.replace("1", "1" + "0" * 5000).encode()


def _bytes(kind: Kind, chance: random.Random) -> bytes:
    """Bytes changed, taken away, repeated, and tokens put in."""
    data = bytearray(kind.text.encode())
    for _ in range(chance.choice([1, 2, 4, 16])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 if data:
                data[min(at, len(data) - 1)] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 40)]
            case 2:
                data[at:at] = data[at : at + chance.randrange(1, 200)] * chance.randrange(1, 4)
            case _:
                data[at:at] = chance.choice(TOKENS).encode("utf-8", "surrogatepass")
    return bytes(data)


def _encoded(kind: Kind, chance: random.Random) -> bytes:
    """Another encoding, line ends, or not text at all."""
    text, noise = kind.text, chance.randbytes(chance.randrange(1, 5000))
    return chance.choice(
        [
            *(text.encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "utf-8-sig")),
            text.replace("dog", "d\xf6g").replace("mini", "m\xefni").encode("latin-1"),
            text.replace("\n", "\r\n").encode(),
            text.replace("\n", "\r").encode(),
            *(b"", b"\n", b"\0" * 100, noise, b"\x1f\x8b\x08" + noise, b"PK\x03\x04" + noise, text.encode() + b"\0"),
            text.encode()[: chance.randrange(len(text))],
        ]
    )


_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_MERGED = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)
_BOMBS: list[Callable[[int, str], str]] = [  # of a depth, and the text of a good file
    *(lambda depth, text: "[" * depth, lambda depth, text: "{" * depth, lambda depth, text: "- " * depth),
    *(lambda depth, text: "[" * depth + "]" * depth, lambda depth, text: '{"a":' * depth + "1" + "}" * depth),
    *(lambda depth, text: "{a: " * depth, lambda depth, text: "a:\n" * depth, lambda depth, text: "[a.b]\n" * 9),
    lambda depth, text: "\n".join(" " * i + "a:" for i in range(min(depth, 2000))),
    *(lambda depth, text: _LAUGHS, lambda depth, text: _LAUGHS + text, lambda depth, text: _MERGED),
    *(lambda depth, text: "a: &a [*a]", lambda depth, text: "a: &a\n  b: *a"),
    *(lambda depth, text: "a = " + "[" * depth, lambda depth, text: "a = {" + "b={" * min(depth, 3000)),
    *(lambda depth, text: "a." * depth + "b = 1", lambda depth, text: f"x = {'9' * 6000}"),
    *(lambda depth, text: f'["{"x" * 20_000_000}"]', lambda depth, text: f"{text}\n{'y' * 5_000_000}"),
    *(lambda depth, text: "[" + "0," * 3_000_000 + "0]", lambda depth, text: '{"a": ' + "1" * 5000 + "}"),
    lambda depth, text: f"[{json.dumps(ROW)}{',[]' * 500_000}]",
    *(lambda depth, text: "\n" * 3_000_000, lambda depth, text: "cccccccccc," * 300_000),
    *(lambda depth, text: '"' + "a,\n" * 500_000, lambda depth, text: "a,b\n" * 300_000),
]


def _bomb(kind: Kind, chance: random.Random) -> bytes:
    """Small files, or long ones, that grow where they are read without bounds."""
    depth = chance.choice([50, 500, 5_000, 200_000])
    return chance.choice(_BOMBS)(depth, kind.text).encode()


def mutated(kind: Kind, chance: random.Random) -> bytes:
    """A damaged file of a kind."""
    ways = [_bytes, _bytes, _encoded, _bomb] + ([_structure] * 5 if kind.dump else [_bytes] * 2)
    return chance.choice(ways)(kind, chance)


# -- reading, in the worker --------------------------------------------------------------------------------------------


def _read(name: str, path: Path) -> None:
    """What a command does with such a file before it computes anything."""
    folder = path.parent
    if name == "recipe":
        from gama.training.lineage import recipe_text
        from gama.training.model_config import model_config
        from gama.training.recipe import load_recipe

        recipe = load_recipe(path)
        recipe_text(recipe)
        if "text_config" in recipe.model:
            model_config(recipe.model)
    elif name == "scene sets":
        from gama.training.scene_sets import read_sets, supply

        supply(read_sets(folder), ["scenes/manifest.json"], folder)
    elif name == "mixture":
        from gama.data.mixture import parts_of

        parts_of(path, "stage1", folder)
    elif name == "models":
        from gama.hub.table import load_table

        load_table(path)
    elif name in ("manifest", "manifest lines"):
        from gama.data.check import Checker
        from gama.data.manifest import entries
        from gama.data.row_index import RowIndex

        for _ in entries(path):  # one at a time, as every reader takes them
            pass
        if path.stat().st_size < 10**6:  # the same rows, and slower
            Checker([path]).run(folder / "clean.json")
        index = RowIndex([path])
        list(map(index.__getitem__, range(len(index))))
    elif name == "questions":
        from gama.inference.rows import asked

        for question in asked(path):
            _ = question.request, question.key
    elif name == "scored":
        from gama.evaluation.scoring import select

        select([path], malformed=lambda error: None)
    elif name == "mixed":
        from gama.data.generation import known_of
        from gama.data.mixture import Part, combine

        combine([Part(path, 1.5, ("cla",))], folder / "out.jsonl", splits=["train"], malformed=lambda error: None)
        for known in known_of([path], folder / "out.json", lambda error: None):
            _ = known.text
    elif name == "answers":
        from gama.inference.journal import Journal

        Journal(path).places()
    elif name == "transcript":
        from gama.chat.session import Session
        from gama.chat.transcript import load

        load(Session(lambda model: None), path)  # type: ignore[arg-type, return-value]
    elif name in ("checkpoint", "state"):
        from gama.training.checkpoints import resumable

        checkpoint = folder / "run" / "checkpoint-3"
        checkpoint.mkdir(parents=True, exist_ok=True)
        for file in ("trainer_state.json", "training.safetensors", "files.json"):
            (checkpoint / file).unlink(missing_ok=True)
        (checkpoint / "trainer_state.json").write_text("{}")
        (checkpoint / "training.safetensors").touch()
        (checkpoint / path.name).write_bytes(path.read_bytes())
        resumable(folder / "run")
    elif name == "metrics":
        from gama.training.plotting import read_curve

        read_curve(folder)
    elif name == "reply":
        from gama.data.generation import parsed

        parsed(path.read_text(encoding="utf-8", errors="replace"))
    elif name == "table":
        from gama.data.sources.data_set import rows_of

        for row in rows_of(path, needed=["filename", "fold", "category", "start"]):
            row.number("start")
            row.one_of("fold", {"1": "a", "2": "b"})
    elif name == "settings":
        os.environ["GAMA_HOME"] = str(folder)
        from gama_cli.config import read

        read()
    else:
        raise AssertionError(name)


def _outcome(name: str, path: Path) -> str:
    """Empty where it held, else what is wrong."""
    from gama.errors import GamaError

    try:
        _read(name, path)
    except GamaError as error:
        message = str(error)
        if len(message) > LONGEST:
            return f"a message of {len(message)} characters: {message[:200]}"
        return f"a message of several lines: {message!r}" if "\n" in message else ""
    except BaseException as error:
        import traceback

        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return f"{type(error).__name__} at {where}: {str(error)[:200]}"
    return ""


def _work() -> None:
    """Reads jobs from stdin, a JSON line each, and answers with a line each."""
    import gama.training.checkpoints
    import gama.training.recipe

    gama.training.recipe.training_kinds()
    _limit_memory()
    print("ready", flush=True)
    for line in sys.stdin:
        name, path = json.loads(line)
        begun = time.monotonic()
        wrong = _outcome(name, Path(path))
        print(json.dumps([wrong, time.monotonic() - begun]), flush=True)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# -- the battery -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """A file that was neither read nor refused well.

    Attributes:
        kind: of the file.
        number: of the try; the same seed makes the same file.
        wrong: the exception, or how the worker ended.
        content: the beginning of the file.
    """

    kind: str
    number: int
    wrong: str
    content: str


@dataclass
class Outcome:
    """Counts of the battery."""

    tried: int = 0
    held: int = 0
    slowest: float = 0.0
    failures: list[Failure] = field(default_factory=list)


class _Worker:
    """The process that reads; started anew when it ended or took too long."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, name: str, path: Path) -> tuple[str, float]:
        process = self._process if self._process is not None and self._process.poll() is None else self._started()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([name, str(path)]) + "\n")
        process.stdin.flush()
        line = self._line(process, SECONDS)
        if line is None:
            return f"no end within {SECONDS:.0f} s", SECONDS
        if not line:
            return f"the process ended with status {process.wait()}", 0.0
        wrong, seconds = json.loads(line)
        return wrong, seconds

    def _started(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._line(self._process, START) == "ready\n", "the worker does not start"
        return self._process

    def _line(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        """The next line; empty where the process ended, None where it was ended for taking too long."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            if not waiting.select(seconds):
                self.close()
                return None
        return process.stdout.readline()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def run(seed: int, count: int) -> Outcome:
    """Read ``count`` damaged files.

    Args:
        seed: the same seed makes the same files.
        count: files; each kind comes in turn.
    """
    chance, every, outcome, worker = random.Random(seed), kinds(), Outcome(), _Worker()
    with tempfile.TemporaryDirectory(prefix="bad_text") as folder:
        try:
            for kind in every:  # the good ones are read
                path = Path(folder) / kind.file
                path.write_text(kind.text, encoding="utf-8")
                wrong, _ = worker.ask(kind.name, path)
                assert not wrong, f"{kind.name}: {wrong}"
            for number in range(count):
                kind = every[number % len(every)]
                own = Path(folder) / str(number)
                own.mkdir()
                path, content = own / kind.file, mutated(kind, chance)
                path.write_bytes(content)
                wrong, seconds = worker.ask(kind.name, path)
                outcome.tried += 1
                outcome.held += not wrong
                outcome.slowest = max(outcome.slowest, seconds)
                if wrong:
                    outcome.failures.append(Failure(kind.name, number, wrong, repr(content[:120])))
                path.unlink()
        finally:
            worker.close()
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _work()
        return
    outcome = run(given.seed, given.count)
    for failure in outcome.failures:
        print(f"{failure.number} {failure.kind}: {failure.wrong}\n    {failure.content}")
    print(f"tried {outcome.tried}, held {outcome.held}, slowest {outcome.slowest:.1f} s")
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
