"""The table of named models: the packaged one, and what a file of the user adds to it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from gama import plain_yaml
from gama.errors import GamaError
from gama.home import home
from gama.hub.addresses import Origin
from gama.hub.names import inner_path, repository
from gama.text import shown

PACKAGED = Path(__file__).with_name("models.yaml")
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = {"summary", "license", "source", "size", "gated", "next", "hub", "urls", "page"}
_HUB_KEYS = {"repo", "type", "revision", "files", "sha256"}
_URL_KEYS = {"url", "name", "size", "sha256"}


@dataclass(frozen=True)
class HubSource:
    """Files of a repository on a Hugging Face hub.

    Attributes:
        repo: ``owner/name``.
        type: kind of repository.
        revision: commit, tag or branch.
        files: patterns of the files that are wanted.
        sha256: hashes we know, by file.
    """

    repo: str
    type: Literal["model", "space"] = "model"
    revision: str = "main"
    files: tuple[str, ...] = ("*",)
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UrlFile:
    """A file at a plain address; ``size`` in bytes and ``sha256`` are None where nobody has told them."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Entry:
    """A named model.

    Attributes:
        name: what ``gama pull`` takes.
        summary, license, source: one line about it, its licence, the page that tells about it.
        origin: where its files are; an address alone where only a browser can download it.
        size: bytes, about; None where it is not known.
        gated: whether a licence has to be accepted before.
        next: commands to show afterwards, ``{path}`` for where the files lie.
    """

    name: str
    summary: str
    license: str
    source: str
    origin: HubSource | tuple[UrlFile, ...] | str
    size: int | None = None
    gated: bool = False
    next: tuple[str, ...] = ()


def load_table(extra: Path | None = None) -> dict[str, Entry]:
    """Every named model: the packaged ones, then those of the user's file.

    Args:
        extra: the user's file; by default the one named by ``GAMA_MODELS``, else ``models.yaml`` in the GAMA
            home (``~/.gama``) where there is one.

    Raises:
        GamaError: for a file that cannot be read or an entry that makes no sense; it names both.
    """
    table = _read(PACKAGED)
    named = extra or (Path(given) if (given := os.environ.get("GAMA_MODELS")) else None)
    own = named or home() / "models.yaml"
    if named is not None or own.is_file():
        table |= _read(own)
    return table


def entry_named(name: str, table: Mapping[str, Entry]) -> Entry:
    """The entry of that name; ``owner/name[@revision]`` is any repository of the hub, ``https://…`` any file.

    Raises:
        GamaError: when there is none; it names the nearest.
    """
    if name in table:
        return table[name]
    if "://" in name:
        Origin.of(name)
        file = PurePosixPath(unquote(urlsplit(name).path)).name
        return Entry(_slug(file), "a file at an address", "not known", name, (UrlFile(name, inner_path(file, name)),))
    if name.count("/") == 1 and not name.startswith((".", "/")):
        repo, _, revision = name.partition("@")
        repository(repo)
        return Entry(
            repo,
            "a repository of the hub",
            "see its page",
            f"https://huggingface.co/{repo}",
            HubSource(repo, "model", revision or "main"),
        )
    near = difflib.get_close_matches(name, table, n=1)
    known = f"did you mean {near[0]!r}?" if near else "see: gama models list --known"
    raise GamaError(f"no model is called {name!r}", known)


def _slug(file: str) -> str:
    return re.sub(r"[^a-z0-9._+-]+", "-", PurePosixPath(file).stem.lower()).strip(".-") or "model"


def _read(file: Path) -> dict[str, Entry]:
    try:
        rows = plain_yaml.read(file) or {}
    except plain_yaml.PlainYamlError as error:
        raise GamaError(f"{file}: the table of models cannot be read: {error}") from error
    if not isinstance(rows, dict):
        raise GamaError(f"{file}: a table of models maps names to entries, this holds a {type(rows).__name__}")
    return {str(name): _entry(str(name), row, file) for name, row in rows.items()}


def _entry(name: str, row: Any, file: Path) -> Entry:
    where = f"{file}: model {shown(name)}"
    if not _NAME.fullmatch(name):
        raise GamaError(f"{where}: a name has lower-case letters, digits, dots, dashes, plus signs and underscores")
    _check_keys(row, _KEYS, {"summary", "license"}, where)
    kinds = [kind for kind in ("hub", "urls", "page") if kind in row]
    if len(kinds) != 1:
        raise GamaError(f"{where}: has {' and '.join(kinds) or 'no source'}", "give one of hub, urls and page")
    origin: HubSource | tuple[UrlFile, ...] | str
    if kinds == ["hub"]:
        origin = _hub(row["hub"], where)
    elif kinds == ["urls"]:
        origin = tuple(_url(each, where) for each in _list(row["urls"], where))
    else:
        origin = str(row["page"])
    return Entry(
        name=name,
        summary=str(row["summary"]),
        license=str(row["license"]),
        source=str(row.get("source", "")),
        origin=origin,
        size=_size(row.get("size"), where),
        gated=bool(row.get("gated", False)),
        next=tuple(map(str, _list(row.get("next", []), where))),
    )


def _hub(row: Any, where: str) -> HubSource:
    _check_keys(row, _HUB_KEYS, {"repo"}, f"{where}: hub")
    kind = row.get("type", "model")
    if kind not in ("model", "space"):
        raise GamaError(f"{where}: hub type is {shown(kind)}, 'model' or 'space' was expected")
    hashes = row.get("sha256") or {}
    if not isinstance(hashes, dict):
        raise GamaError(f"{where}: hub sha256 maps files to hashes, this is a {type(hashes).__name__}")
    return HubSource(
        repo=repository(str(row["repo"])),
        type=kind,
        revision=inner_path(str(row.get("revision", "main")), f"{where}: hub revision"),
        files=tuple(map(str, _list(row.get("files", ["*"]), where))),
        sha256={str(f): h for f, given in hashes.items() if (h := _hash(given, where)) is not None},
    )


def _url(row: Any, where: str) -> UrlFile:
    _check_keys(row, _URL_KEYS, {"url", "name"}, f"{where}: urls")
    name = str(row["name"])
    return UrlFile(str(row["url"]), inner_path(name, where), _size(row.get("size"), where), _hash(row["sha256"], where))


def _check_keys(row: Any, known: set[str], needed: set[str], where: str) -> None:
    if not isinstance(row, dict):
        raise GamaError(f"{where}: keys and values were expected, this is a {type(row).__name__}")
    unknown = sorted(map(str, set(row) - known))
    if unknown:
        raise GamaError(f"{where}: unknown key {shown(unknown[0])}", f"known: {', '.join(sorted(known))}")
    if missing := sorted(needed - set(row)):
        raise GamaError(f"{where}: the key {missing[0]!r} is missing")
    if "sha256" in known and "url" in known and "sha256" not in row:
        raise GamaError(f"{where}: the key 'sha256' is missing", "write 'sha256: null' where it is not known")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise GamaError(f"{where}: a list was expected, this is a {type(value).__name__}")
    return value


def _size(value: Any, where: str) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise GamaError(f"{where}: the size {shown(value)} is not a number of bytes")


def _hash(value: Any, where: str) -> str | None:
    if value is None or (isinstance(value, str) and _SHA256.fullmatch(value)):
        return value
    raise GamaError(f"{where}: the sha256 {shown(value)} is not 64 lower-case hexadecimal digits")
