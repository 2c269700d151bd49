"""Files of a Hugging Face hub: what there is and how large, gates and mirrors, and the cache transformers reads.

huggingface_hub says what a repository holds and lays out the cache; the bytes come by :mod:`gama.hub.transfer`, which
continues a file after a cut (huggingface_hub 2 throws away what a broken run has fetched).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gama import __version__
from gama.errors import CheckpointError, GamaError, MissingPackageError
from gama.hub.addresses import Origin, Unresolved, allowed
from gama.hub.http import proxy_for
from gama.hub.table import Entry, HubSource, inner_path
from gama.hub.transfer import Digest, Remote

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
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
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
        CheckpointError: where the hub holds another file than the table says.
    """
    package = hub()
    address = endpoint()
    try:
        _look_at(address, address)
    except Unresolved as error:
        raise Unreachable(error.message, error.hint) from error
    with _checked_redirects(address):
        try:
            info = package.HfApi(endpoint=address, library_name="gama", library_version=__version__).repo_info(
                source.repo, repo_type=source.type, revision=source.revision, files_metadata=True, timeout=30
            )
        except package.errors.GatedRepoError:
            raise gated(entry) from None
        except package.errors.HfHubHTTPError as error:
            raise _refused(entry, source, error) from error
        except (OSError, _transport_error()) as error:
            raise Unreachable(
                f"the hub at {address} cannot be reached: {' '.join(str(error).split()) or type(error).__name__}",
                "try: gama doctor; for a mirror set HF_ENDPOINT",
            ) from error
    wanted = [s for s in info.siblings if any(fnmatch(s.rfilename, pattern) for pattern in source.files)]
    if not wanted:
        raise CheckpointError(f"{source.repo}: holds no file like {', '.join(source.files)} at {source.revision}")
    return Listing(info.sha, tuple(_file(each, source, address, info.sha) for each in wanted))


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
    package = hub()
    folder = package.file_download.repo_folder_name(repo_id=source.repo, repo_type=source.type)
    return cache_folder() / str(folder) / "blobs" / file.key


def cache_folder() -> Path:
    """The hub's cache on this disk."""
    return Path(hub().constants.HF_HUB_CACHE)


def snapshot(source: HubSource, commit: str | None = None) -> Path:
    """The folder in the cache that holds the wanted files.

    Args:
        commit: what the hub says the revision is; None to look at this disk alone.

    Raises:
        GamaError: where files are missing and cannot be had, or the revision has just become another commit.
    """
    package = hub()
    with _checked_redirects(endpoint()), _no_bars():
        try:
            found = package.snapshot_download(
                source.repo,
                repo_type=source.type,
                revision=source.revision,  # not the commit: the cache then knows the branch by its name, too
                allow_patterns=list(source.files),
                endpoint=endpoint(),
                local_files_only=commit is None,
                library_name="gama",
                library_version=__version__,
            )
        except (OSError, package.errors.HfHubHTTPError, _transport_error()) as error:
            raise GamaError(
                f"{source.repo}: not whole on this disk, and the hub at {endpoint()} gives no files now",
                "connect this machine, or unset HF_HUB_OFFLINE; then run the command again",
            ) from error
    if commit not in (None, Path(found).name):
        raise GamaError(f"{source.repo}: {source.revision} became another commit just now", "run the command again")
    return Path(found)


@contextmanager
def _no_bars() -> Iterator[None]:
    """huggingface_hub without its progress bars: what it does here takes no time."""
    utils = hub().utils
    shown = not utils.are_progress_bars_disabled()
    if shown:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            utils.enable_progress_bars()


def _file(sibling: Any, source: HubSource, address: str, commit: str) -> HubFile:
    path = inner_path(sibling.rfilename, source.repo)
    told = sibling.lfs.sha256 if sibling.lfs is not None else None
    known = source.sha256.get(path)
    if told is not None and known is not None and told != known:
        raise CheckpointError(
            f"{source.repo}: {path} has the sha256 {told} on the hub, the table of models says {known}",
            "the file was changed there; nothing was fetched",
        )
    sha256 = known or told
    key = told or sibling.blob_id
    if not key:
        raise CheckpointError(f"{source.repo}: the hub tells no hash of {path}", "is HF_ENDPOINT a hub?")
    digest = Digest("sha256", sha256) if sha256 else Digest("git", key)
    kind = "spaces/" if source.type == "space" else ""
    url = f"{address}/{kind}{source.repo}/resolve/{commit}/{quote(path)}"
    size = sibling.lfs.size if sibling.lfs is not None else sibling.size
    return HubFile(path, Remote(url, size, digest, _token_header()), key)


def _token_header() -> dict[str, str]:
    token = hub().get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refused(entry: Entry, source: HubSource, error: Exception) -> GamaError:
    package = hub()
    if isinstance(error, package.errors.RevisionNotFoundError):
        return GamaError(f"{source.repo}: has no revision {source.revision!r}")
    if isinstance(error, package.errors.RepositoryNotFoundError):
        if entry.gated:
            return gated(entry)
        return GamaError(
            f"{source.repo}: no {source.type} of that name at {endpoint()}, or it is private", "hf auth login"
        )
    return GamaError(f"{source.repo}: the hub at {endpoint()} answered: {' '.join(str(error).split())}")


def _transport_error() -> Any:
    """What the http library under huggingface_hub (httpx or httpx2) raises for a broken connection."""
    library = type(hub().get_session()).__module__.partition(".")[0]
    return sys.modules[library].TransportError


def _look_at(url: str, first: str) -> None:
    origin = Origin.of(url)
    allowed(origin, Origin.of(first), proxied=proxy_for(origin) is not None)


@contextmanager
def _checked_redirects(address: str) -> Iterator[None]:
    """Look at every request of huggingface_hub, redirects included, before it is sent."""
    package = hub()
    client = package.get_session()
    kind, hooks = type(client), client.event_hooks

    def check(request: Any) -> None:
        _look_at(str(request.url), address)

    def made(**hooked: Any) -> Any:
        return kind(event_hooks=hooked, follow_redirects=True, timeout=None)

    package.set_client_factory(lambda: made(**{**hooks, "request": [*hooks.get("request", []), check]}))
    try:
        yield
    finally:
        package.set_client_factory(lambda: made(**hooks))
