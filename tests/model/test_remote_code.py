"""A saved folder is opened by who has transformers alone, and answers the same there."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from model import small

import gama
from gama.model.bundling import bundled
from gama.model.processing import GamaFeatureExtractor, GamaProcessor
from gama.model.remote import FILE, write_remote_code

ALONE = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gama", "gama_cli"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""

ANSWER = """
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForCausalLM, AutoProcessor

folder, clip, out, again = sys.argv[1:]
given = {"trust_remote_code": True}
model, processor = (kind.from_pretrained(folder, **given) for kind in (AutoModelForCausalLM, AutoProcessor))
parts = [{"type": "audio", "path": clip}, {"type": "text", "text": "What? </s>"}]
asked = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
inputs = processor.apply_chat_template([{"role": "user", "content": parts}], **asked)
with torch.no_grad():
    logits = model(**inputs).logits
ids = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
torch.save({**inputs, "logits": logits, "ids": ids}, out)
for kind in (AutoConfig, AutoFeatureExtractor, AutoModel):
    assert type(kind.from_pretrained(folder, **given)).__module__.startswith("transformers_modules."), kind
if again:
    model.save_pretrained(again)
    processor.save_pretrained(again)
"""


def run(script: str, *arguments: Any, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ALONE + script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=cache)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.flac"
    samples = 0.1 * np.random.default_rng(0).standard_normal((22_050, 2))
    soundfile.write(path, samples, 44_100)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    model = small.model("llama", license="mit")
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    processor = GamaProcessor(
        extractor, small.tokenizer(), audio_token_id=small.VOCABULARY, num_audio_tokens=small.SOFT
    )
    processor.save_pretrained(folder)  # in either order
    model.save_pretrained(folder)
    return folder


def test_the_same_without_gama(folder: Path, clip: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoProcessor

    done = run(ANSWER, folder, clip, tmp_path / "got.pt", tmp_path / "again", cache=tmp_path)
    assert not done.returncode, done.stderr
    got = torch.load(tmp_path / "got.pt")
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(processor) is GamaProcessor  # where gama is installed, its own classes
    parts = [{"type": "audio", "path": str(clip)}, {"type": "text", "text": "What? </s>"}]
    asked: dict[str, Any] = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    want = processor.apply_chat_template([{"role": "user", "content": parts}], **asked)
    assert torch.equal(got["input_ids"], want["input_ids"])
    torch.testing.assert_close(got["input_features"], want["input_features"])
    with torch.no_grad():
        torch.testing.assert_close(got["logits"], model(**want).logits)
    ids = model.generate(**want, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(got["ids"], ids)
    for name in (FILE, "config.json", "processor_config.json", "chat_template.jinja"):
        assert (tmp_path / "again" / name).is_file()
    assert (tmp_path / "again" / FILE).read_text() == (folder / FILE).read_text()


def test_without_trust_it_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    """Not a bare tokenizer in the place of a processor, and no advice to upgrade."""
    for kind in ("AutoProcessor", "AutoModelForCausalLM"):
        script = f"from transformers import {kind}\n{kind}.from_pretrained(sys.argv[1], trust_remote_code=False)"
        done = run(script, folder, cache=tmp_path)
        assert done.returncode and "trust_remote_code=True" in done.stderr


def test_the_file_needs_nothing_of_gama(folder: Path) -> None:
    text = (folder / FILE).read_text()
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert not node.level
            modules.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
    assert modules <= {*sys.stdlib_module_names, "numpy", "torch", "transformers", "tokenizers", "soundfile"}


def test_it_is_the_packages_code(folder: Path) -> None:
    """Written at save time out of the modules, every line of which is in it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("gama-audio")
    except PackageNotFoundError:
        number = "of a checkout"
    assert (folder / FILE).read_text() == bundled(number)
    made = ast.parse(bundled(number))
    ours = ast.parse((Path(gama.__file__).parent / "model" / "processing.py").read_text())
    classes = [{n.name: ast.dump(n) for n in tree.body if isinstance(n, ast.ClassDef)} for tree in (made, ours)]
    assert set(classes[1]) <= set(classes[0]) and "GamaProcessor" in classes[1]


def test_the_readme(folder: Path, tmp_path: Path) -> None:
    text = (folder / "README.md").read_text()
    assert "library_name: gama\n" in text and "license: mit\n" in text and "trust_remote_code=True" in text
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("mine")
    write_remote_code(copy)
    assert (copy / "README.md").read_text() == "mine"


def test_where_the_classes_are(folder: Path) -> None:
    config, processor = (json.loads((folder / f"{n}.json").read_text()) for n in ("config", "processor_config"))
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_gama.GamaForConditionalGeneration"
    assert processor["auto_map"]["AutoProcessor"] == "modeling_gama.GamaProcessor"


def test_a_package_of_the_same_name(tmp_path: Path) -> None:
    """PyPI's gama is another package; pip writes one over the other without a word."""
    (tmp_path / "gama").mkdir()
    (tmp_path / "gama" / "__init__.py").write_text("__version__ = '23.0'\n")
    shutil.copytree(Path(gama.__file__).parents[1] / "gama_cli", tmp_path / "gama_cli")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "from gama_cli.main import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("gama: error: another package named gama") and done.stderr.count("\n") == 1
    assert str(tmp_path / "gama") in done.stderr and "pip install gama-audio" in done.stderr
