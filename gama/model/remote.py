"""What a saved folder carries for who opens it with transformers alone: code, where it is, and how to use it."""

from __future__ import annotations

import importlib
import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FILE = "modeling_gama.py"
README = "README.md"

_MODEL = {
    "AutoConfig": "GamaConfig",
    "AutoModel": "GamaModel",
    "AutoModelForCausalLM": "GamaForConditionalGeneration",
    "AutoModelForMultimodalLM": "GamaForConditionalGeneration",
}
_EXTRACTOR = {"AutoFeatureExtractor": "GamaFeatureExtractor"}
_PROCESSOR = {"AutoProcessor": "GamaProcessor"}

_USAGE = """---
library_name: gama
pipeline_tag: audio-text-to-text
tags: [audio, gama]
{license}---

# {name}

A [GAMA](https://arxiv.org/abs/2406.11768) model: ask questions about sound.

With the package (`pip install gama-audio`; `gama` on PyPI is an unrelated package):

```python
import gama

model = gama.load("{name}")
print(model.ask("clip.wav", "what happened?"))
```

With transformers alone, which runs the code in `{file}`:

```python
from transformers import AutoModelForCausalLM, AutoProcessor

folder = "{name}"
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
parts = [{{"type": "audio", "path": "clip.wav"}}, {{"type": "text", "text": "what happened?"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": parts}}], add_generation_prompt=True, tokenize=True, return_dict=True
)
ids = model.generate(**inputs, max_new_tokens=60)
print(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""


def write_remote_code(folder: str | os.PathLike[str]) -> None:
    """Complete a folder of save_pretrained: the code, its classes in the JSON files, a README where there is none."""
    folder = Path(folder)
    (folder / FILE).write_text(code(), encoding="utf-8")
    config = _mapped(folder / "config.json", _MODEL)
    _mapped(folder / "preprocessor_config.json", _EXTRACTOR)
    _mapped(folder / "processor_config.json", _PROCESSOR)
    readme = folder / README
    if config is not None and not readme.exists():
        license = f"license: {config['license']}\n" if config.get("license") else ""
        name = folder.resolve().name
        readme.write_text(_USAGE.format(name=name, file=FILE, license=license), encoding="utf-8")


def code() -> str:
    """The text of the file: this very one where it is that file, or else made from the package's modules."""
    if Path(__file__).name == FILE:
        return Path(__file__).read_text(encoding="utf-8")
    try:
        number = version("gama-audio")
    except PackageNotFoundError:  # run from a checkout
        number = "of a checkout"
    made: str = importlib.import_module("gama.model.bundling").bundled(number)  # not for the file: by its name alone
    return made


def _mapped(file: Path, classes: dict[str, str]) -> dict[str, Any] | None:
    """Name the classes in a JSON file; its content, or None where there is none."""
    if not file.is_file():
        return None
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    stem = Path(FILE).stem
    content["auto_map"] = {auto: f"{stem}.{name}" for auto, name in classes.items()}
    if isinstance(content.get("feature_extractor"), dict):
        content["feature_extractor"]["auto_map"] = {auto: f"{stem}.{name}" for auto, name in _EXTRACTOR.items()}
        content["auto_map"] |= content["feature_extractor"]["auto_map"]
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return content


__all__ = ["write_remote_code"]
