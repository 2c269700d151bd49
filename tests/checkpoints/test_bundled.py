"""Names of models: the packaged one wins over whatever lies in the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

import gama
from gama.checkpoints.bundled import model_folder, names
from gama.errors import CheckpointError


def test_the_packaged_model_is_found_beside_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    packaged = model_folder()
    assert packaged == model_folder("mini") == gama.model_folder() and packaged.is_absolute()
    assert model_folder("./mini") == Path("mini")
    assert names() == ["mini"]


@pytest.mark.parametrize("name", ["nothing-here", "no/such/folder"])
def test_an_unknown_model_lists_the_known(name: str) -> None:
    with pytest.raises(CheckpointError, match="mini"):
        model_folder(name)
