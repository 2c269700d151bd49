"""Files of a Hugging Face hub: what there is and how large, gates and mirrors, and the cache transformers reads.

huggingface_hub tells where the cache and the token are, and finds a repository in the cache. What comes over the
network is read here and by :mod:`gama.hub.transfer`, which continues a file after a cut: huggingface_hub makes paths of
whatever a server states (the ETag, the commit), reads answers of any length, and starts a broken file over.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from gama.atomic import make_folder, move, write_text
from gama.errors import CheckpointError, GamaError, MissingPackageError
from gama.hub import names
from gama.hub.addresses import Unresolved
from gama.hub.http import body, get
from gama.hub.names import inner_path, short, shown
from gama.hub.table import Entry, HubSource
from gama.hub.transfer import Digest, Remote

_LISTING = 64 * 2**20  # bytes of a repository's listing; 10,000 files take 4 MB
_PATIENCE = 120.0  # seconds for a listing
_LARGEST = 2**50  # bytes of a file

_TOKEN_HINT = (
    "then make a token that may read gated repositories at {endpoint}/settings/tokens, and give it by "
    "'hf auth login' or HF_TOKEN=hf_…"
)


class Unreachable(GamaError):
    """The hub does not answer."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: in the repository.
        remote: how to get it.
        key: the name of its content in the hub's cache.
    """

    path: str
    remote: Remote
    key: str


@dataclass(frozen=True)
class Listing:
    """What is wanted of a repository, at one commit."""

    commit: str
    files: tuple[HubFile, ...]


def hub() -> Any:
    """The package huggingface_hub.

    Raises:
        MissingPackageError: where it is not installed.
    """
    try:
        import huggingface_hub.constants
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise MissingPackageError(
            "models on a hub need the package huggingface_hub", "pip install huggingface_hub"
        ) from None
    return huggingface_hub


def endpoint() -> str:
    """The hub's address: ``HF_ENDPOINT``, for a mirror, or huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def offline() -> bool:
    """Whether the user wants no connection (``HF_HUB_OFFLINE``)."""
    return bool(hub().constants.HF_HUB_OFFLINE)


def has_token() -> bool:
    """Whether a token is kept or given by ``HF_TOKEN``."""
    return bool(hub().get_token())


def listing(entry: Entry, source: HubSource) -> Listing:
    """Ask the hub what there is.

    Raises:
        Unreachable: where the hub does not answer.
        GamaError: where the hub has no such repository, or shows it to those only who have accepted
            its licence.
        CheckpointError: where the hub holds another file than the table says, or answers what no hub would.
    """
    address = endpoint()
    names.repository(source.repo)
    inner_path(source.revision, f"{source.repo}: revision")
    told = _asked(entry, source, address)
    commit = names.commit(told.get("sha"), f"{source.repo}: commit")
    rows = told.get("siblings")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError(f"{source.repo}: the hub's answer lists no files", "is HF_ENDPOINT a hub?")
    wanted = [row for row in rows if any(fnmatch(str(row.get("rfilename")), pattern) for pattern in source.files)]
    if not wanted:
        raise CheckpointError(f"{source.repo}: holds no file like {', '.join(source.files)} at {source.revision}")
    files = tuple(_file(row, source, address, commit) for row in wanted)
    names.check_apart((file.path for file in files), source.repo)
    return Listing(commit, files)


def _asked(entry: Entry, source: HubSource, address: str) -> dict[str, Any]:
    """The hub's answer about a repository at a revision."""
    url = f"{address}/api/{source.type}s/{source.repo}/revision/{quote(source.revision, safe='')}?blobs=true"
    try:
        with get(url, secret=_token_header()) as response:
            if response.status != 200:
                raise _refused(entry, source, response)
            content = body(response, _LISTING, seconds=_PATIENCE)
    except Unresolved as error:
        raise Unreachable(error.message, error.hint) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(
            f"the hub at {address} cannot be reached: {short(' '.join(str(error).split())) or type(error).__name__}",
            "try: gama doctor; for a mirror set HF_ENDPOINT",
        ) from error
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source.repo}: the hub at {address} answers no JSON: {short(str(error))}") from None
    if not isinstance(told, dict):
        raise CheckpointError(f"{source.repo}: the hub at {address} answers a {type(told).__name__}, no repository")
    return told


def gated(entry: Entry) -> GamaError:
    """What to accept and where to put the token."""
    page = entry.source or endpoint()
    return GamaError(
        f"{entry.name}: is shown only to those who have accepted its licence ({entry.license})",
        f"sign in and accept it at {page}, wait for the mail that grants access, "
        + _TOKEN_HINT.format(endpoint=endpoint()),
    )


def blob(source: HubSource, file: HubFile) -> Path:
    """Where the hub's cache keeps a file's content: under its hash."""
    return repository(source) / "blobs" / file.key


def repository(source: HubSource) -> Path:
    """The folder of a repository in the hub's cache."""
    return cache_folder() / "--".join([f"{source.type}s", *names.repository(source.repo).split("/")])


def cache_folder() -> Path:
    """The hub's cache on this disk."""
    return Path(hub().constants.HF_HUB_CACHE)


def snapshot(source: HubSource) -> Path:
    """The folder in the cache that holds the wanted files; nothing is asked.

    Raises:
        GamaError: where they are not on this disk.
    """
    names.repository(source.repo)
    missing = GamaError(
        f"{source.repo}: not whole on this disk, and the hub at {endpoint()} gives no files now",
        "connect this machine, or unset HF_HUB_OFFLINE; then run the command again",
    )
    try:
        found = hub().snapshot_download(
            source.repo,
            repo_type=source.type,
            revision=source.revision,
            allow_patterns=list(source.files),
            local_files_only=True,
        )
    except OSError as error:
        raise missing from error
    folder = Path(found)
    inside = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if not any(fnmatch(file, pattern) for file in inside for pattern in source.files):
        raise missing
    return folder


def lay_out(source: HubSource, told: Listing) -> Path:
    """Name the fetched contents in the cache as huggingface_hub does: a link each below the commit, the commit under
    the revision. Returns the commit's folder.

    Raises:
        GamaError: where something else lies in the way.
    """
    folder = repository(source) / "snapshots" / told.commit
    try:
        for file in told.files:
            _link(blob(source, file), folder / file.path)
        if source.revision != told.commit:
            _refer(repository(source) / "refs" / source.revision, told.commit)
    except OSError as error:
        raise GamaError(f"{error.filename or folder}: {error.strerror or error}", "gama models list") from error
    return folder


def _link(content: Path, place: Path) -> None:
    if place.exists() and place.samefile(content):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_name(f".{uuid4().hex}.tmp")
    try:
        try:
            made.symlink_to(os.path.relpath(content, place.parent))
        except OSError:  # Windows lets developers alone make them
            os.link(content, made)
        move(made, place)
    finally:
        made.unlink(missing_ok=True)


def _refer(place: Path, commit: str) -> None:
    if place.is_file() and place.read_text(encoding="ascii", errors="replace") == commit:
        return
    make_folder(place.parent)
    write_text(place, commit)


def _file(row: Mapping[str, Any], source: HubSource, address: str, commit: str) -> HubFile:
    path = inner_path(row.get("rfilename"), source.repo)
    where = f"{source.repo}: {path}"
    lfs = row.get("lfs")
    if lfs is not None and not isinstance(lfs, dict):
        raise CheckpointError(f"{where}: the hub tells {shown(lfs)} of a large file", "is HF_ENDPOINT a hub?")
    told = None if lfs is None else names.sha256(lfs.get("sha256"), where)
    known = source.sha256.get(path)
    if told is not None and known is not None and told != known:
        raise CheckpointError(
            f"{source.repo}: {path} has the sha256 {told} on the hub, the table of models says {known}",
            "the file was changed there; nothing was fetched",
        )
    sha256 = known or told
    key = told or names.git_hash(row.get("blobId"), where)
    digest = Digest("sha256", sha256) if sha256 else Digest("git", key)
    kind = "spaces/" if source.type == "space" else ""
    url = f"{address}/{kind}{source.repo}/resolve/{commit}/{quote(path)}"
    size = _size((row if lfs is None else lfs).get("size"), where)
    return HubFile(path, Remote(url, size, digest, _token_header()), key)


def _size(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST:
        return value
    raise CheckpointError(f"{where}: the hub tells the size {shown(value)}, a number of bytes was expected")


def _token_header() -> dict[str, str]:
    token = hub().get_token()
    if token and not (token.isascii() and token.isprintable()):
        raise GamaError("the token for the hub holds characters that no token has", "see HF_TOKEN, or: hf auth login")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refused(entry: Entry, source: HubSource, response: http.client.HTTPResponse) -> GamaError:
    code, words = (response.getheader(f"X-Error-{name}") or "" for name in ("Code", "Message"))
    if code == "GatedRepo":
        return gated(entry)
    if code == "RevisionNotFound":
        return GamaError(f"{source.repo}: has no revision {source.revision!r}")
    if code == "RepoNotFound" or response.status == 404 or (response.status == 401 and "credentials" not in words):
        if entry.gated:
            return gated(entry)
        return GamaError(
            f"{source.repo}: no {source.type} of that name at {endpoint()}, or it is private", "hf auth login"
        )
    answer = f"{response.status} {response.reason}: {words}" if words else f"{response.status} {response.reason}"
    return GamaError(f"{source.repo}: the hub at {endpoint()} answered: {short(answer)}")
