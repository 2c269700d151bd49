"""GET with redirects that are checked one by one; the connection goes to the very address that was checked."""

from __future__ import annotations

import base64
import http.client
import importlib
import importlib.util
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from gama import __version__
from gama.errors import GamaError
from gama.hub.addresses import Origin, allowed
from gama.hub.names import shown

TIMEOUT = 30.0  # seconds of silence
REDIRECTS = 10
_MOVED = (301, 302, 303, 307, 308)
_BLOCK = 2**16
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"  # beside letters, digits and _.-, what may stand in an address unescaped


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
            response = _answer(connection, url, {**own, **(secret or {} if origin == first else {})})
            place = response.getheader("Location")
            with response:  # closed by itself: the connection forgets an answer that ends with it
                if response.status not in _MOVED or place is None:
                    yield response
                    return
            url = _redirected(url, place)
        finally:
            connection.close()
    raise GamaError(f"{first}: more than {REDIRECTS} redirects")


def body(response: http.client.HTTPResponse, most: int, *, seconds: float) -> bytes:
    """The content of an answer that is held in memory.

    Args:
        most: bytes it may have.
        seconds: that it may take.

    Raises:
        http.client.HTTPException: where it is longer, slower or cut off.
    """
    ends, pieces, left = time.monotonic() + seconds, [], content_length(response)
    if left is not None and left > most:
        raise http.client.HTTPException(f"the answer has {left} bytes, {most} at most were expected")
    size = 0
    while left is None or size < left:
        piece = response.read1(_BLOCK if left is None else min(_BLOCK, left - size))
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > most or time.monotonic() > ends:
            raise http.client.HTTPException(f"the answer has not ended after {size} bytes")
    if left is not None and size < left:
        raise http.client.HTTPException(f"{size} of {left} bytes arrived")
    return b"".join(pieces)


def content_length(response: http.client.HTTPResponse) -> int | None:
    """The length that an answer states; None where it states none.

    Raises:
        GamaError: for something that is no length.
    """
    stated = response.getheader("Content-Length")
    if stated is None:
        return None
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 18):
        raise GamaError(f"the server states the length {shown(stated)}, a number of bytes was expected")
    return int(stated)


def _answer(connection: http.client.HTTPConnection, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    try:
        connection.request("GET", _target(url), headers=dict(headers))
        return connection.getresponse()
    except ValueError as error:  # what no header or address can hold
        raise http.client.HTTPException(str(error)) from error


def _redirected(url: str, place: str) -> str:
    """The address a redirect names; http.client has decoded its bytes as Latin-1."""
    try:
        return urljoin(url, quote(place, safe=_AS_IT_IS, encoding="latin-1"))
    except ValueError as error:
        raise GamaError(f"{Origin.of(url)} redirects to {shown(place)}, which is no address: {error}") from None


def _target(url: str) -> str:
    parts = urlsplit(url)
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_IT_IS)


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
