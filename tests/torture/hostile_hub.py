"""A hub that lies in seeded ways, against :mod:`gama.hub` in this process: ``python tests/torture/hostile_hub.py``.

A try is one lie (in the listing, in an answer's head or body, in a redirect, or bytes at random) and two pulls in a
row, into the cache, into a folder or from a plain address. It holds when

- every file outside the folders of models is what it was, and there is no new one;
- a pull ends in a :class:`~gama.errors.GamaError` of one short printable line, or in files of the right content;
- nothing is left behind but unfinished files with something in them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import huggingface_hub.constants
from hub.serving import COMMIT, Repo, Site, git_hash, serve

from gama.errors import GamaError
from gama.hub import transfer
from gama.hub.pull import Pulled, pull, unchecked
from gama.hub.table import Entry, HubSource, UrlFile
from gama.text import printable

CONTENT = random.Random(0).randbytes(40_000)
SMALL = b'{"a": 1}'
SLOWEST = 20.0  # seconds for two pulls
_LONGEST = 800  # characters of an error


@dataclass(frozen=True)
class Outcome:
    """What came of a battery.

    Attributes:
        tried: lies told.
        held: those that did no harm.
        failures: the others, a line each, with the number of the try.
    """

    tried: int
    held: int
    failures: tuple[str, ...]


def run(seed: int, count: int) -> Outcome:
    """Tell ``count`` lies."""
    failures = []
    with _quiet_places() as root, serve(Site()) as site:
        os.environ["HF_ENDPOINT"] = site.url
        for number in range(count):
            chance = random.Random(f"{seed}/{number}")
            failures += [f"try {number}: {what}" for what in _try(site, root / str(number), chance)]
    harmed = {failure.split(":")[0] for failure in failures}
    return Outcome(count, count - len(harmed), tuple(failures))


# -- one try -----------------------------------------------------------------------------------------------------------


def _try(site: Site, root: Path, chance: random.Random) -> Iterator[str]:
    """The harm that a lie does."""
    outside, models = root / "outside", root / "outside" / "models"
    models.mkdir(parents=True)
    victims = [outside / "victim.txt", outside / "thesis" / "chapter.txt", root / "victim.txt"]
    for victim in victims:
        victim.parent.mkdir(exist_ok=True)
        victim.write_text("mine")
    before = _everything(root, models)
    os.environ["GAMA_HOME"] = str(models / "home")
    huggingface_hub.constants.HF_HUB_CACHE = str(models / "hf")
    entry, to = _wanted(site, models, chance)
    lie = _lie(site, chance)
    begun = time.monotonic()
    for _ in range(2):
        try:
            yield from (f"{what} after {lie}" for what in _wrong_content(pull(entry, to=to)))
        except GamaError as error:
            text = str(error)
            if printable(text) != text or len(text) > _LONGEST:
                yield f"an error of {len(text)} characters: {text[:200]!r} after {lie}"
        except Exception as error:
            yield f"{type(error).__name__}: {error} after {lie}"
    if time.monotonic() - begun > SLOWEST:
        yield f"{time.monotonic() - begun:.0f} seconds after {lie}"
    after = _everything(root, models)
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield f"{path} was changed after {lie}"
    yield from (f"{path} is left behind after {lie}" for path in _litter(models))


def _wanted(site: Site, models: Path, chance: random.Random) -> tuple[Entry, Path | None]:
    """What is pulled, and where to."""
    if chance.random() < 0.3:
        digest = chance.choice([None, _sha256(CONTENT)])
        size = chance.choice([None, len(CONTENT)])
        file = UrlFile(f"{site.url}/them/gama/resolve/{COMMIT}/model.bin", "model.bin", size, digest)
        return Entry("plain", "", "", "", (file,)), models / "there"
    revision = chance.choice(["main", COMMIT])
    entry = Entry("ours", "", "", "", HubSource("them/gama", revision=revision))
    return entry, chance.choice([None, models / "there"])


def _wrong_content(done: Pulled) -> Iterator[str]:
    right = {"model.bin": CONTENT, "small.json": SMALL}
    for file in done.files:
        content = (done.path / file.path).read_bytes()
        if file.path not in unchecked(done) and content not in (right.get(file.path), *right.values()):
            yield f"{file.path} has {len(content)} bytes of other content"


def _everything(root: Path, but: Path) -> dict[str, bytes | None]:
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
        if not path.is_relative_to(but)
    }


def _litter(models: Path) -> Iterator[Path]:
    """Empty folders, empty parts, temporary files, notes about nothing."""
    for path in sorted(models.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                yield path
        elif (
            path.name.endswith((".tmp", ".lock"))
            or (path.suffix == ".part" and not path.stat().st_size)
            or path.name.endswith(".part.json")
            and not path.with_suffix("").exists()
        ):
            yield path


# -- lies --------------------------------------------------------------------------------------------------------------


def _lie(site: Site, chance: random.Random) -> str:
    """Have the site tell one; what it was."""
    site.repos = {"them/gama": Repo({"model.bin": CONTENT, "small.json": SMALL})}
    site.listings, site.raw, site.redirects, site.statuses, site.cuts = {}, {}, {}, {}, {}
    site.ranges, site.etags = chance.random() < 0.8, chance.random() < 0.8
    api = f"/api/models/them/gama/revision/{chance.choice(['main', COMMIT])}"
    file = f"/them/gama/resolve/{COMMIT}/{chance.choice(['model.bin', 'small.json'])}"
    kind = chance.choice(["listing", "listing", "listing", "answer", "answer", "answer", "redirect", "cuts", "noise"])
    if kind == "listing":
        told = _listing(chance)
        site.listings["them/gama"] = told
        return f"listing {json.dumps(told)[:300]}"
    if kind == "cuts":
        site.cuts[file] = [chance.randrange(0, len(CONTENT)) for _ in range(chance.randrange(1, 30))]
        return f"cuts {site.cuts}"
    path = chance.choice([api, file, file])
    if kind == "redirect":
        site.redirects[path] = chance.choice(_PLACES)
        return f"redirect {site.redirects}"
    content = json.dumps(_listing(chance)).encode() if path == api else chance.choice([CONTENT, SMALL])
    pieces = _answer(content, chance) if kind == "answer" else [_noise(chance)]
    site.raw[path] = pieces
    return f"{path}: {b''.join(pieces)[:300]!r}"


_PIECES = [
    *(
        "..",
        "..",
        "../..",
        "victim.txt",
        "thesis",
        "chapter.txt",
        "/",
        "//",
        "\\",
        "..\\",
        ".",
        "",
        "C:",
        "a",
        "con",
        "~",
    ),
    *(
        "nul.txt",
        "\0",
        "\n",
        "\r\n",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "\uff0e\uff0e",
        "%2e%2e",
        "~root",
        "$HOME",
        " ",
        ":s",
    ),
    *("x" * 300, "model.bin", "model.bin.part", "gama-pull.json", "refs", "snapshots", "blobs"),
]
_ODD: list[Any] = [None, True, -1, 0, 2**63, 10**30, 1.5, [], {}, [[]], "", "0", "main", float("nan"), float("inf")]
_PLACES = [
    *("file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1:9/x", "http://[::1]:9/", "https://169.254.169.254/"),
    *(
        "//",
        "",
        "https://",
        "https://[",
        "https://a:b@c/",
        "\x01",
        "http://0x7f.1/",
        "https://10.1/",
        "https://\xff/",
        "?",
    ),
    *("https://x:99999/", "../../../../victim.txt", "/" + "a" * 60_000, "http://127.0.0.1", "gopher://127.0.0.1/"),
    *("javascript:1", "data:,x"),
]


def _name(chance: random.Random) -> str:
    joint = chance.choice(["/", "/", "/", "\\", ""])
    return joint.join(chance.choice(_PIECES) for _ in range(chance.randrange(1, 7)))


def _hash(chance: random.Random) -> Any:
    digits = "".join(chance.choices("0123456789abcdef", k=chance.choice([40, 64, 63, 65, 1])))
    return chance.choice(
        [_name(chance), _name(chance), chance.choice(_ODD), digits, digits.upper(), digits + "/../x", digits + "\n"]
    )


def _listing(chance: random.Random) -> Any:
    """A listing with one to three wrong things in it."""
    rows: list[Any] = [
        {
            "rfilename": "model.bin",
            "size": len(CONTENT),
            "blobId": git_hash(CONTENT),
            "lfs": {"sha256": _sha256(CONTENT), "size": len(CONTENT), "pointerSize": 134},
        },
        {"rfilename": "small.json", "size": len(SMALL), "blobId": git_hash(SMALL)},
    ]
    told: dict[str, Any] = {"id": "them/gama", "sha": COMMIT, "siblings": rows}
    for _ in range(chance.randrange(1, 4)):
        row = chance.choice([row for row in rows if isinstance(row, dict)] or [{}])
        what = chance.choice(["name", "name", "blob", "lfs", "size", "commit", "rows", "row", "twice", "all"])
        if what == "name":
            row["rfilename"] = chance.choice([_name(chance), _name(chance), chance.choice(_ODD)])
        elif what == "blob":
            row["blobId"] = _hash(chance)
            row["lfs"] = chance.choice([None, row.get("lfs")])
        elif what == "lfs":
            row["lfs"] = chance.choice(
                [{"sha256": _hash(chance), "size": len(CONTENT)}, chance.choice(_ODD), {"sha256": _sha256(CONTENT)}]
            )
        elif what == "size":
            place = row["lfs"] if isinstance(row.get("lfs"), dict) else row
            place["size"] = chance.choice([*_ODD, 1, len(CONTENT) + 1])
        elif what == "commit":
            told["sha"] = _hash(chance)
        elif what == "rows":
            told["siblings"] = chance.choice(_ODD)
        elif what == "row":
            rows[chance.randrange(len(rows))] = chance.choice(_ODD)
        elif what == "twice":
            rows.append(chance.choice([dict(row), {**row, "rfilename": f"{row.get('rfilename')}/inner"}]))
        elif chance.random() < 0.3:
            return chance.choice(_ODD)
    return told


def _answer(content: bytes, chance: random.Random) -> list[bytes]:
    """An HTTP answer whose head, body and length need not fit each other."""
    begins = chance.randrange(len(content) + 1)
    status = chance.choice(
        ["200 OK", "200 OK", "206 Partial", "206 Partial", "204 No", "302 Found", "304 Not", "403 No", "404 No",
         "416 Range", "500 Oh", "999 What", "100 Continue", "-1 X", "abc", "", "200 " + "\x1b[2J" * 20]
    )  # fmt: skip
    lengths = [
        len(content),
        len(content),
        -5,
        0,
        len(content) - 1,
        len(content) + 1,
        10**17,
        "9" * 5000,
        "+5",
        "5, 5",
        "\xb2",
        "",
    ]
    total = chance.choice([len(content), len(content) + 1, 0, "*", "-1", 10**30])
    ends = chance.choice([len(content) - 1, begins - 1, len(content) + 5, -1])
    heads = {
        "Content-Length": str(chance.choice(lengths)),
        "Content-Range": f"bytes {chance.choice([begins, 0, -1])}-{ends}/{total}",
        "Transfer-Encoding": chance.choice(["chunked", "gzip", "chunked, chunked"]),
        "Content-Encoding": chance.choice(["gzip", "br", "identity"]),
        "Location": chance.choice(_PLACES),
        "ETag": f'"{_name(chance)}"',
        "X-Repo-Commit": _name(chance),
        "X-Linked-Etag": f'"{_name(chance)}"',
        "X-Error-Code": chance.choice(["GatedRepo", "RepoNotFound", "RevisionNotFound", _name(chance)]),
        "X-Error-Message": _name(chance),
        "Content-Disposition": f'attachment; filename="{_name(chance)}"',
        "Connection": chance.choice(["close", "keep-alive", "upgrade"]),
    }
    chosen = [f"{name}: {heads[name]}" for name in heads if chance.random() < 0.35]
    if chance.random() < 0.05:
        chosen += [f"X-{index}: y" for index in range(300)]
    text = "\r\n".join([f"HTTP/{chance.choice(['1.1', '1.1', '1.0', '9.9', ''])} {status}", *chosen, "", ""])
    body = chance.choice(
        [content, content, content[begins:], content[:begins], b"", _chunked(content, chance), b"x" * 2**22]
    )
    return [text.encode("utf-8", "surrogatepass"), body]


def _chunked(content: bytes, chance: random.Random) -> bytes:
    size = chance.choice([f"{len(content):x}", "-5", "zz", "", "f" * 20, "0", f"{len(content):x};" + "e" * 70_000])
    return size.encode() + b"\r\n" + content + chance.choice([b"\r\n0\r\n\r\n", b"", b"\r\n-1\r\n", b"X: y\r\n" * 1000])


def _noise(chance: random.Random) -> bytes:
    """Bytes at random, or a right answer with some of its bytes changed."""
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(5000))
    right = bytearray(b'HTTP/1.1 200 OK\r\nContent-Length: 40000\r\nETag: "abc"\r\n\r\n' + CONTENT)
    for _ in range(chance.randrange(1, 6)):
        right[chance.randrange(60)] = chance.randrange(256)
    return bytes(right[: chance.choice([len(right), chance.randrange(len(right))])])


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


# -- the places of this process ----------------------------------------------------------------------------------------


@contextmanager
def _quiet_places() -> Iterator[Path]:
    """A folder for everything, no token, no pauses; the environment and the settings are put back."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))
        os.environ.pop("HF_TOKEN", None)
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        constants = huggingface_hub.constants
        stack.enter_context(mock.patch.object(constants, "HF_HUB_CACHE", str(root / "hf")))
        stack.enter_context(mock.patch.object(constants, "HF_TOKEN_PATH", str(root / "token")))
        stack.enter_context(mock.patch.object(constants, "HF_HUB_OFFLINE", False))
        stack.enter_context(mock.patch.object(transfer, "PAUSE", 0.0))
        yield root


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    found = run(options.seed, options.count)
    print(f"hostile hub: {found.tried} tried, {found.held} held")
    for failure in found.failures:
        print(ascii(failure)[:1000])
    return 1 if found.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
