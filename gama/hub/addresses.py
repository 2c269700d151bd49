"""Which addresses may be asked: https, plain http on this machine alone, and no redirect into a private network."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from gama.errors import GamaError
from gama.hub.names import shown

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")


class Unresolved(GamaError):
    """A host without an address."""


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of an address: what may be trusted with a token, and what a redirect is compared with."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an address.

        Raises:
            GamaError: for anything but http and https with a host and without a password in it.
        """
        given = shown(_without_user(url))
        if any(character < " " or character == "\x7f" for character in url):  # urlsplit would leave some of them out
            raise GamaError(f"{given} is not an address: it holds control characters")
        try:
            parts = urlsplit(url)
            port, host = parts.port, _ascii(parts.hostname or "")
        except ValueError as error:
            raise GamaError(f"{given} is not an address: {error}") from None
        if parts.scheme not in _PORTS:
            raise GamaError(f"{given}: only https addresses are fetched (plain http on this machine)")
        if not host or parts.username is not None or parts.password is not None:
            raise GamaError(f"{parts.scheme}://{host}: an address has a host and no user name in it")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def _without_user(url: str) -> str:
    """An address for a message: a password in it is not shown."""
    return re.sub(r"//[^/]*@", "//", url)


def _ascii(host: str) -> str:
    """A host's name as the name service takes it; an IPv6 address as it is.

    Raises:
        ValueError: for what can be the name of no host.
    """
    if ":" in host:
        ipaddress.IPv6Address(host)
        return host
    name = host.removesuffix(".")
    if not name.isascii():
        name = name.encode("idna").decode("ascii")
    if name and not _HOST.fullmatch(name):
        raise ValueError(f"{shown(name)} can be the name of no host")
    return name


def resolve(origin: Origin) -> list[str]:
    """The addresses of a host.

    Raises:
        Unresolved: where the name has none.
    """
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unresolved(
            f"{origin.host}: the name cannot be resolved ({error})", "is this machine connected? try: gama doctor"
        ) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_loopback(address: str) -> bool:
    """Whether an address is this machine."""
    return all(part.is_loopback for part in _meant(address))


def is_public(address: str) -> bool:
    """Whether an address belongs to the internet: not private, local, reserved or multicast, however it is written."""
    return all(part.is_global and not part.is_multicast for part in _meant(address))


def _meant(address: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """An address and the IPv4 addresses hidden in it."""
    given = ipaddress.ip_address(address.split("%")[0])
    if given.version == 4:
        return [given]
    if given.ipv4_mapped is not None:
        return [given.ipv4_mapped]
    meant: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [given]
    if given.sixtofour is not None:
        meant.append(given.sixtofour)
    if given.teredo is not None:
        meant.extend(given.teredo)
    if given in _NAT64:
        meant.append(ipaddress.IPv4Address(int(given) & 0xFFFFFFFF))
    return meant


def allowed(origin: Origin, first: Origin, *, proxied: bool = False) -> list[str]:
    """The addresses a request may go to.

    Args:
        origin: what is to be asked.
        first: what the user asked for; another one was reached by a redirect.
        proxied: whether a proxy resolves the name; then an empty list may come back.

    Raises:
        GamaError: for plain http beyond this machine, and for a redirect to a private address.
    """
    try:
        addresses = resolve(origin)
    except Unresolved:
        if not proxied:
            raise
        addresses = []
    if origin.scheme == "http" and not (addresses and all(map(is_loopback, addresses))):
        raise GamaError(f"{origin}: plain http is fetched from this machine only", "use https")
    inside = [address for address in addresses if not is_public(address)]
    if origin != first and inside:
        raise GamaError(
            f"{first} redirects to {origin} ({inside[0]}), which is no public address", "nothing was fetched from it"
        )
    return addresses
