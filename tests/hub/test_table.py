"""The table of named models and what a user's file adds to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gama.errors import GamaError
from gama.hub.table import Entry, HubSource, UrlFile, entry_named, load_table


@pytest.fixture(autouse=True)
def no_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GAMA_MODELS", raising=False)


def test_the_packaged_table() -> None:
    table = load_table()
    assert {"gama-stage4", "gama-stage5", "llama-2-7b-chat", "llama-2-7b-chat-qformer"} <= set(table)
    assert table["llama-2-7b-chat"].gated
    for entry in table.values():
        assert entry.summary and entry.license and entry.source.startswith("https://")
        if isinstance(entry.origin, HubSource):
            assert entry.origin.repo.count("/") == 1
        elif isinstance(entry.origin, tuple):
            assert all(file.url.startswith("https://") for file in entry.origin)


ROW = "mine:\n  summary: mine\n  license: MIT\n"
URL = "  urls:\n    - {url: 'https://example.org/w.bin', name: sub/w.bin, size: 12, sha256: null}\n"


@pytest.mark.parametrize("how", ["home", "environment", "argument"])
def test_a_file_of_the_user_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    file = tmp_path / "home" / "models.yaml"
    file.parent.mkdir()
    file.write_text(ROW + URL + "gama-stage4:\n  summary: other\n  license: MIT\n  hub: {repo: me/mine}\n")
    if how != "home":
        file = file.rename(tmp_path / "own.yaml")
    if how == "environment":
        monkeypatch.setenv("GAMA_MODELS", str(file))
    table = load_table(file if how == "argument" else None)
    assert table["mine"].origin == (UrlFile("https://example.org/w.bin", "sub/w.bin", 12, None),)
    assert table["gama-stage4"].origin == HubSource("me/mine")
    assert "gama-stage5" in table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROW, "no source"),
        (ROW + URL + "  page: https://example.org\n", "urls and page"),
        (ROW + URL + "  colour: blue\n", "unknown key 'colour'"),
        ("mine: {license: MIT, page: x}", "'summary' is missing"),
        (ROW + URL.replace(", sha256: null", ""), "'sha256' is missing"),
        (ROW + URL.replace("null", "abc"), "not 64 lower-case"),
        (ROW + URL.replace("12", "'12'"), "not a number of bytes"),
        (ROW + URL.replace("sub/", "../"), "leaves the folder"),
        (ROW + URL.replace("sub/", "/etc/"), "leaves the folder"),
        (ROW + URL.replace("sub/", "C:"), "leaves the folder"),
        (ROW + "  hub: {repo: a/b, type: dataset}\n", "'model' or 'space'"),
        (ROW.replace("mine:", "../mine:") + URL, "a name has"),
        ("- a\n", "this holds a list"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(GamaError, match=message) as error:
        load_table(file)
    assert str(file) in str(error.value)


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMA_MODELS", str(tmp_path / "absent.yaml"))
    with pytest.raises(GamaError, match="cannot be read"):
        load_table()


def test_names() -> None:
    table = load_table()
    assert entry_named("gama-stage4", table) is table["gama-stage4"]
    with pytest.raises(GamaError, match="did you mean 'gama-stage4'"):
        entry_named("gama-stag4", table)
    with pytest.raises(GamaError, match="models list --known"):
        entry_named("xyzzy", table)
    assert entry_named("me/mine@v2", table).origin == HubSource("me/mine", "model", "v2")
    made = entry_named("https://example.org/a/My%20Weights.bin?dl=1", table)
    assert made == Entry(
        "my-weights",
        "a file at an address",
        "not known",
        made.source,
        (UrlFile("https://example.org/a/My%20Weights.bin?dl=1", "My Weights.bin"),),
    )
