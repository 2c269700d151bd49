"""One engine answers under ask, chat and eval: they take the same options, which reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gama.chat.settings import Model
from gama.chat.voices import open_voice
from gama.inference import opening
from gama.inference.prefixes import Prefixes
from gama_cli.ask import ask
from gama_cli.chat import _session, chat
from gama_cli.eval import evaluate
from gama_cli.main import cli

LOADING = {"model", "quant", "device", "dtype", "runtime", "frontend", "provider", "threads", "cache", "cache_size"}
WORDS = {"preset", "max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "template"}
HEARING = {"channel", "max_duration"}


class Asker:
    """A model without weights."""

    def __init__(self) -> None:
        self.prefixes = Prefixes()

    def keep_prefixes(self, store: Any) -> None:
        self.prefixes.store = store


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What models were loaded with."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(opening, "load", lambda **loading: found.append(loading) or Asker())
    monkeypatch.setattr("gama.inference.memory.is_cuttable", lambda _: True)
    return found


@pytest.mark.parametrize("command", [chat, evaluate], ids=["chat", "eval"])
def test_the_options_of_ask(command: Any) -> None:
    known, own = ({p.name: p for p in c.params} for c in (ask, command))
    for name in LOADING | WORDS | HEARING:
        assert (own[name].opts, own[name].help) == (known[name].opts, known[name].help), name


def test_a_conversation_is_loaded_as_it_was_asked_for(tmp_path: Path, loaded: list[dict[str, Any]]) -> None:
    words = ["--threads", "3", "--cache", str(tmp_path / "kept"), "--cache-size", "1MB", "--channel", "0"]
    options = chat.make_context("chat", words).params
    session = _session(lambda _: None, options)  # type: ignore[arg-type, return-value]
    assert session.model == Model(threads=3, cache=str(tmp_path / "kept"), cache_size=10**6)
    assert session.hearing == {"channel": 0, "max_duration": 1800.0}
    voice = open_voice(session.model)
    assert loaded == [
        {"name_or_dir": None, "quant": "none", "device": "auto", "dtype": "auto", "runtime": "auto"}
        | {"frontend": None, "provider": "auto", "threads": 3}
    ]
    assert voice.asker.prefixes.store is not None and (tmp_path / "kept").is_dir()  # type: ignore[attr-defined]
    assert open_voice(Model()).asker.prefixes.store is None  # type: ignore[attr-defined]


def test_a_folder_that_can_keep_nothing_is_told_in_a_conversation(
    runner: CliRunner, tmp_path: Path, loaded: list[dict[str, Any]]
) -> None:
    (tmp_path / "file").touch()
    done = runner.invoke(cli, ["chat", f"--cache={tmp_path}/file/kept"], input="what is rain?\n")
    assert done.exit_code == 1 and "no cache can be kept there" in done.stderr and loaded == []
