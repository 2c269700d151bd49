"""The language model leaves GAMA as a plain transformers folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gama.export.folders import readable
from gama.model.gama import GamaForConditionalGeneration
from gama.model.processing import GamaProcessor
from gama.prompt import OWN_PROMPT
from gama.quiet import quiet_loading

LANGUAGE_MODEL = "language_model"


def write_language_model(
    gama: GamaForConditionalGeneration, processor: GamaProcessor, folder: Path, dtype: torch.dtype
) -> None:
    """Write the language model alone; its weights are of that precision afterwards, in memory as well."""
    model = gama.language_model.to(dtype)
    model.config.dtype = dtype
    if gama.generation_config is not None:
        model.generation_config = gama.generation_config
    with quiet_loading(progress=False):
        model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    _without_gama(folder, processor.audio_token)
    readable(folder)


def _without_gama(folder: Path, audio_token: str) -> None:
    """Take out of a tokenizer's files what only GAMA's processor has a use for.

    Args:
        folder: of a saved tokenizer.
        audio_token: the placeholder; it stays where it is one of the tokenizer's own, as gama-mini's is.
    """
    settings = folder / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8"))
    for name in ("processor_class", "auto_map", "local_files_only", "is_local"):
        config.pop(name, None)
    vocabulary = folder / "tokenizer.json"
    if vocabulary.is_file():
        content = json.loads(vocabulary.read_text(encoding="utf-8"))
        last = max([len(content["model"]["vocab"]) - 1, *(t["id"] for t in content["added_tokens"])])
        # the processor has added it if it is the last: another one's place is not left empty
        added = [t for t in content["added_tokens"] if t["content"] != audio_token or t["id"] < last]
        if len(added) != len(content["added_tokens"]):
            _write(vocabulary, content | {"added_tokens": added})
            _forget(config, audio_token)
    _write(settings, config)
    template = folder / "chat_template.jinja"
    if template.is_file() and template.read_text(encoding="utf-8").startswith(OWN_PROMPT):
        template.unlink()


def _forget(config: dict[str, Any], token: str) -> None:
    """Take a token out of the settings of a tokenizer."""
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(config.get(name), list):
            config[name] = [
                t for t in config[name] if t != token and not (isinstance(t, dict) and t["content"] == token)
            ]
    known = config.get("added_tokens_decoder", {})
    config |= {"added_tokens_decoder": {i: t for i, t in known.items() if t["content"] != token}} if known else {}


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
