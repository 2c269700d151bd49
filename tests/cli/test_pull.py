"""``gama pull``: what it prints where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub.serving import Site, serve

from gama.hub import transfer
from gama_cli.main import cli

BIG = b"weights" * 10_000
SHA256 = hashlib.sha256(BIG).hexdigest()
TABLE = """
mine:
  summary: mine
  license: MIT
  source: https://example.org
  size: 70_000
  urls: [{{url: "{url}/model.bin", name: model.bin, size: 70000, sha256: {sha256}}}]
  next: ["gama inspect {{path}}/model.bin"]
"""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    monkeypatch.setenv("GAMA_HOME", str(tmp_path / "home"))
    with serve(Site(files={"/model.bin": BIG})) as served:
        (tmp_path / "own.yaml").write_text(TABLE.format(url=served.url, sha256=SHA256))
        (tmp_path / "bad.yaml").write_text(TABLE.format(url=served.url, sha256="f" * 64))
        yield served


def test_the_folder_on_stdout_the_rest_on_stderr(site: Site, runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(cli, ["pull", "mine", "--table", str(tmp_path / "own.yaml")])
    folder = tmp_path / "home" / "models" / "mine"
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{folder}\n"
    assert "mine: mine, about 70 kB" in result.stderr
    assert "licence: MIT" in result.stderr
    assert "every hash right" in result.stderr
    assert f"next: gama inspect {folder}/model.bin" in result.stderr
    assert (folder / "model.bin").read_bytes() == BIG


def test_json(site: Site, runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(
        cli, ["pull", "mine", "--table", str(tmp_path / "own.yaml"), "--to", str(tmp_path / "there"), "--json"]
    )
    told = json.loads(result.stdout)
    assert told["path"] == str(tmp_path / "there")
    assert told["files"] == [{"path": "model.bin", "size": len(BIG), "sha256": SHA256, "checked": True}]


def test_without_a_hash_it_says_so(site: Site, runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(cli, ["pull", f"{site.url}/model.bin", "--to", str(tmp_path / "there")])
    assert result.exit_code == 0
    assert (
        f"warning: model.bin: no hash is known, its content could not be checked; its sha256 is {SHA256}"
        in result.stderr
    )
    result = runner.invoke(cli, ["pull", f"{site.url}/model.bin", "--sha256", SHA256, "--to", str(tmp_path / "two")])
    assert "warning" not in result.stderr and "every hash right" in result.stderr


def test_wrong_hash_is_one_line_and_status_1(site: Site, runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(cli, ["pull", "mine", "--table", str(tmp_path / "bad.yaml")])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error: model.bin: its sha256 hash is" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gama-stag4"], "did you mean 'gama-stage4'"),
        (["gama-stage4", "--sha256", "0" * 64], "--sha256 goes with an address"),
        (["https://example.org/x.bin", "--sha256", "xyz"], "64 hexadecimal"),
        (["http://example.invalid/x.bin"], "cannot be resolved"),
        (["gama-drive"], "only a browser"),
    ],
)
def test_refusals(site: Site, runner: CliRunner, words: list[str], message: str) -> None:
    result = runner.invoke(cli, ["pull", *words])
    assert result.exit_code in (1, 2)
    assert message in result.stderr


def test_the_packaged_model_needs_no_fetching(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["pull", "mini"])
    assert "part of the package" in result.stderr
    assert (Path(result.stdout.strip()) / "config.json").is_file()
