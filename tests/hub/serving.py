"""Servers on this machine for the tests of fetching: plain files that can be cut off, and something like a hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Site:
    """What a server has and how it misbehaves.

    Attributes:
        files: path -> content.
        redirects: path -> where it sends.
        cuts: path -> after how many bytes each next answer breaks off; used up one by one.
        statuses: path -> what the next answers are; used up one by one.
        raw: path -> a whole answer in pieces, sent as it is; then the connection ends.
        listings: repository -> what is answered as JSON in place of its listing.
        requests: (method, path, headers) as they came.
        ranges: whether ranges are honoured.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    raw: dict[str, Iterable[bytes]] = field(default_factory=dict)
    listings: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)

    def ranges_of(self, path: str) -> list[str | None]:
        """The Range header of each GET of a path, lower-case."""
        return [headers.get("range") for method, asked, headers in self.requests if (method, asked) == ("GET", path)]


@dataclass
class Repo:
    """A repository of the hub: its files; ``gated`` ones are shown to who brings the token."""

    files: dict[str, bytes]
    kind: str = "models"
    gated: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """The files as the hub lists them; ``.bin`` and ``.safetensors`` are its large files."""
        rows = []
        for path, content in self.files.items():
            row: dict[str, Any] = {"type": "file", "path": path, "rfilename": path, "size": len(content)}
            row["oid"] = row["blobId"] = git_hash(content)
            if path.endswith((".bin", ".safetensors")):
                sha256 = self.hashes.get(path, hashlib.sha256(content).hexdigest())
                row["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": 134}
            rows.append(row)
        return rows


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve a site on a free port of this machine."""

    class Handler(_Handler):
        served = site

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever is lied to may hang up."""


class _Handler(BaseHTTPRequestHandler):
    served: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        site, path = self.served, urlsplit(self.path).path
        headers = {name.lower(): value for name, value in self.headers.items()}
        site.requests.append((self.command, path, headers))
        if path in site.raw:
            self._raw(site.raw[path])
        elif site.statuses.get(path):
            self._plain(site.statuses[path].pop(0))
        elif path in site.redirects:
            self._plain(302, {"Location": site.redirects[path]})
        elif path.startswith("/api/"):
            self._api(path, headers)
        elif "/resolve/" in path:
            self._resolve(path, headers, body)
        elif path in site.files:
            self._content(path, site.files[path], headers, body)
        else:
            self._plain(404)

    def _plain(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _raw(self, pieces: Iterable[bytes]) -> None:
        self.close_connection = True
        with suppress(OSError):  # the other side hangs up when it has seen enough
            for piece in pieces:
                self.wfile.write(piece)

    def _api(self, path: str, headers: dict[str, str]) -> None:
        for name, repo in self.served.repos.items():
            if path.startswith(f"/api/{repo.kind}/{name}"):
                listing = self.served.listings.get(name, {"id": name, "sha": COMMIT, "siblings": repo.rows()})
                self._plain(200, {"Content-Type": "application/json"}, json.dumps(listing).encode())
                return
        self._plain(401, {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, path: str, headers: dict[str, str], body: bool) -> None:
        where, _, rest = path.removeprefix("/spaces").lstrip("/").partition("/resolve/")
        repo, file = self.served.repos[where], rest.partition("/")[2]
        if repo.gated and headers.get("authorization") != f"Bearer {repo.gated}":
            self._plain(403, {"X-Error-Code": "GatedRepo"})
            return
        row = next(row for row in repo.rows() if row["path"] == file)
        etag = row["lfs"]["sha256"] if "lfs" in row else row["oid"]
        self._content(path, repo.files[file], headers, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    def _content(
        self, path: str, content: bytes, headers: dict[str, str], body: bool, extra: dict[str, str] | None = None
    ) -> None:
        begins, etag = 0, f'"{hashlib.md5(content).hexdigest()}"'
        sent = dict(extra or ({"ETag": etag} if self.served.etags else {}))
        asked = headers.get("range")
        if asked and self.served.ranges and headers.get("if-range", etag) == etag:
            begins = int(asked.removeprefix("bytes=").rstrip("-"))
            if begins >= len(content):
                self._plain(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            sent["Content-Range"] = f"bytes {begins}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if begins else 200)
        for name, value in {"Content-Length": str(len(content) - begins), **sent}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            cuts = self.served.cuts.get(path)
            piece = content[begins:]
            self.wfile.write(piece[: cuts[0]] if cuts else piece)
            if cuts:
                cuts.pop(0)
                self.wfile.flush()
                self.close_connection = True
