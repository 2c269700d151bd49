"""Which addresses are asked, and which redirects are followed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hub.serving import Site, serve

from gama.errors import GamaError
from gama.hub import addresses, http
from gama.hub.addresses import Origin, allowed, is_loopback, is_public
from gama.hub.transfer import Remote, fetch


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public(address: str) -> None:
    assert is_public(address) and not is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *(
            "::1",
            "fe80::1%eth0",
            "fc00::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ),
    ],
)
def test_private_however_it_is_written(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "file:///etc/passwd",
        "https:///x",
        "https://me:word@example.org/x",
        "https://a:b:c/",
        "w.bin",
    ],
)
def test_no_address(url: str) -> None:
    with pytest.raises(GamaError) as error:
        Origin.of(url)
    assert "word" not in str(error.value)


def resolving(monkeypatch: pytest.MonkeyPatch, **hosts: str) -> None:
    def looked_up(host: str, port: int, **_: object) -> list[object]:
        if host not in hosts:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (hosts[host], port))]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", looked_up)


def test_plain_http_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, localhost="127.0.0.1", mirror="10.0.0.5", world="8.8.8.8")
    here = Origin.of("http://localhost:8080")
    assert allowed(here, here) == ["127.0.0.1"]
    for host in ("mirror", "world"):
        there = Origin.of(f"http://{host}")
        with pytest.raises(GamaError, match="plain http"):
            allowed(there, there)


def test_a_mirror_in_the_house_is_the_users_choice_a_redirect_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, mirror="10.0.0.5", world="8.8.8.8")
    mirror, world = Origin.of("https://mirror"), Origin.of("https://world")
    assert allowed(mirror, mirror) == ["10.0.0.5"]
    assert allowed(world, mirror) == ["8.8.8.8"]
    with pytest.raises(GamaError, match=r"https://world redirects to https://mirror \(10.0.0.5\)"):
        allowed(mirror, world)


def test_a_name_that_only_the_proxy_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    world = Origin.of("https://world")
    assert allowed(world, world, proxied=True) == []
    with pytest.raises(GamaError, match="cannot be resolved"):
        allowed(world, world)


@pytest.mark.parametrize(
    "place",
    ["http://169.254.169.254/latest/meta-data", "https://10.0.0.1/w.bin", "https://[::1]/w.bin", "file:///etc/passwd"],
)
def test_redirects_inwards_are_refused(tmp_path: Path, place: str) -> None:
    with serve(Site(redirects={"/w.bin": place})) as site, pytest.raises(GamaError):
        fetch(Remote(f"{site.url}/w.bin"), tmp_path / "w.bin")
    assert list(tmp_path.iterdir()) == []


def test_redirect_to_another_port_of_this_machine_is_refused(tmp_path: Path) -> None:
    with serve(Site(files={"/w.bin": b"secret"})) as inner, serve(Site(redirects={"/x": f"{inner.url}/w.bin"})) as site:
        with pytest.raises(GamaError, match="no public address"):
            fetch(Remote(f"{site.url}/x"), tmp_path / "w.bin")
        assert inner.requests == []


def test_redirects_within_a_host_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    with serve(Site(files={"/w.bin": b"w"}, redirects={"/a": "/b", "/b": "w.bin", "/round": "/round"})) as site:
        fetch(Remote(f"{site.url}/a"), tmp_path / "w.bin")
        assert (tmp_path / "w.bin").read_bytes() == b"w"
        with pytest.raises(GamaError, match="more than 10 redirects"):
            fetch(Remote(f"{site.url}/round"), tmp_path / "other")


def test_a_host_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when checked and private when connected to would get round the check."""
    with serve(Site(files={"/w.bin": b"w"}, redirects={"/a": "/w.bin"})) as site:
        asked: list[str] = []

        def resolve(origin: Origin) -> list[str]:
            asked.append(origin.host)
            return ["127.0.0.1"]

        monkeypatch.setattr(addresses, "resolve", resolve)
        fetch(Remote(site.url.replace("127.0.0.1", "model.invalid") + "/a"), tmp_path / "w.bin")
    assert asked == ["model.invalid"]


def test_the_proxy_of_the_environment_is_asked_for_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:p%40ss@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert http.proxy_for(Origin.of("https://world.example")) == "http://user:p%40ss@proxy.example:3128"
    assert http.proxy_for(Origin.of("https://inside.example")) is None
    assert http.proxy_for(Origin.of("http://127.0.0.1")) is None
    made = http._through("http://user:p%40ss@proxy.example:3128", Origin.of("https://world.example"))
    assert (made.host, made.port) == ("proxy.example", 3128)
    assert made._tunnel_host == "world.example"  # type: ignore[attr-defined]
