"""The Auto classes of transformers know ``gama`` after ``import gama``, whichever of the two is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gama import _registration, import_hooks

LOOK_UPS = """
import json, pathlib, tempfile
from transformers.models.auto.feature_extraction_auto import feature_extractor_class_from_name
from transformers.models.auto.processing_auto import processor_class_from_name

assert processor_class_from_name("GamaProcessor").__module__ == "gama.model.processing"
assert feature_extractor_class_from_name("GamaFeatureExtractor").__module__ == "gama.model.features"
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "config.json").write_text(json.dumps({"model_type": "gama"}))
    config = AutoConfig.from_pretrained(folder)
assert type(config).__module__ == "gama.model.configuration"
assert AutoModelForCausalLM._model_mapping[type(config)].__name__ == "GamaForConditionalGeneration"
assert AutoProcessor.__name__ == "AutoProcessor"
"""

SCRIPTS = {
    "transformers_stays_lazy": """
import gama, sys
assert "transformers" not in sys.modules
import transformers
assert "torch" not in sys.modules and "gama.model" not in sys.modules
""",
    "gama_first": f"""
import gama, sys
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, LlamaForCausalLM
assert "gama.model" not in sys.modules
{LOOK_UPS}
""",
    "transformers_first": f"""
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor
import gama
{LOOK_UPS}
""",
    "configuration_only": """
import gama
from transformers import AutoConfig
assert type(AutoConfig.for_model("gama")) is gama.GamaConfig
""",
    "model_from_configuration_class": """
from gama.model.configuration import GamaConfig
from transformers import AutoModelForCausalLM
assert AutoModelForCausalLM._model_mapping[GamaConfig].__name__ == "GamaForConditionalGeneration"
""",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_look_up_in_a_fresh_interpreter(name: str, tmp_path: Path) -> None:
    script = tmp_path / f"{name}.py"
    script.write_text(SCRIPTS[name])
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_installing_twice_adds_one_finder() -> None:
    _registration.install()
    _registration.install()
    assert sum(isinstance(finder, _registration._AliasFinder) for finder in sys.meta_path) == 1


def test_module_of_a_table_keeps_its_own_loader() -> None:
    from transformers.models.auto import configuration_auto

    assert not isinstance(configuration_auto.__loader__, import_hooks.HookedLoader)
    assert not isinstance(configuration_auto.__spec__.loader, import_hooks.HookedLoader)
    assert configuration_auto.CONFIG_MAPPING_NAMES["gama"] == "GamaConfig"
