"""GET with redirects that are checked one by one; the connection goes to the very address that was checked."""

from __future__ import annotations

import base64
import http.client
import importlib
import importlib.util
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from gama import __version__
from gama.errors import GamaError
from gama.hub.addresses import Origin, allowed

TIMEOUT = 30.0  # seconds of silence
REDIRECTS = 10
_MOVED = (301, 302, 303, 307, 308)


@contextmanager
def get(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    secret: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET, redirects followed.

    Args:
        url: an address; see :mod:`gama.hub.addresses` for which are taken.
        headers: sent to every host on the way.
        secret: headers that only the first host may see, such as a token.
        timeout: seconds of silence after which a connection counts as broken.

    Raises:
        GamaError: for an address that may not be asked, too many redirects.
        OSError, http.client.HTTPException: where the connection fails.
    """
    first = Origin.of(url)
    known: dict[Origin, list[str]] = {}  # one look-up a host: a second one could tell another address
    for _ in range(REDIRECTS + 1):
        origin = Origin.of(url)
        proxy = proxy_for(origin)
        if origin not in known:
            known[origin] = allowed(origin, first, proxied=proxy is not None)
        connection = _through(proxy, origin) if proxy is not None else _Direct.to(origin, known[origin])
        connection.timeout = timeout
        own = {"User-Agent": f"gama/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        try:
            connection.request("GET", _target(url), headers={**own, **(secret or {} if origin == first else {})})
            response = connection.getresponse()
            place = response.getheader("Location")
            if response.status not in _MOVED or place is None:
                yield response
                return
            url = urljoin(url, place)
        finally:
            connection.close()
    raise GamaError(f"{first}: more than {REDIRECTS} redirects")


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class _Direct(http.client.HTTPConnection):
    """A connection to addresses that have been looked up already, so that no second look-up can differ."""

    origin: Origin
    addresses: list[str]

    @classmethod
    def to(cls, origin: Origin, addresses: list[str]) -> _Direct:
        made = cls(origin.host, origin.port, timeout=TIMEOUT)
        made.origin, made.addresses = origin, addresses
        made.default_port = 443 if origin.scheme == "https" else 80  # what the Host header leaves out
        return made

    def connect(self) -> None:
        self.sock = self._reach()
        if self.origin.scheme == "https":
            self.sock = _certificates().wrap_socket(self.sock, server_hostname=self.origin.host)

    def _reach(self) -> socket.socket:
        for address in self.addresses[:-1]:
            try:
                return socket.create_connection((address, self.origin.port), self.timeout)
            except OSError:
                continue  # the next address of the same host
        return socket.create_connection((self.addresses[-1], self.origin.port), self.timeout)


def proxy_for(origin: Origin) -> str | None:
    """The proxy the environment names for an https host."""
    if origin.scheme != "https" or proxy_bypass(origin.host):
        return None
    return getproxies().get("https") or None


def _through(proxy: str, origin: Origin) -> http.client.HTTPConnection:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise GamaError(f"the proxy {parts.scheme}://{parts.hostname or ''} cannot be used", "give an http:// proxy")
    headers = {}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode()
    made = http.client.HTTPSConnection(parts.hostname, parts.port or 80, timeout=TIMEOUT, context=_certificates())
    made.set_tunnel(origin.host, origin.port, headers=headers)
    return made


@cache
def _certificates() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if importlib.util.find_spec("certifi") is not None:  # some systems' Python has no certificates of its own
        context.load_verify_locations(importlib.import_module("certifi").where())
    return context
