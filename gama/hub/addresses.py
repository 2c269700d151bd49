"""Which addresses may be asked: https, plain http on this machine alone, and no redirect into a private network."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from gama.errors import GamaError

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


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
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise GamaError(f"{url!r} is not an address: {error}") from None
        if parts.scheme not in _PORTS:
            raise GamaError(f"{url!r}: only https addresses are fetched (plain http on this machine)")
        if not parts.hostname or parts.username is not None or parts.password is not None:
            raise GamaError(f"{parts.scheme}://{parts.hostname or ''}: an address has a host and no user name in it")
        return cls(parts.scheme, parts.hostname.rstrip("."), port or _PORTS[parts.scheme])

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


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
