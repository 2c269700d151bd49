"""What other libraries say stays off a user's terminal, unless it was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLIP = Path(__file__).resolve().parents[1] / "examples" / "dog_then_bells.flac"

NOISE = """
import logging, sys, warnings
{silence}
warnings.warn("of a library", FutureWarning)
logging.getLogger("some.library").warning("of a library")
from transformers.utils import logging as theirs
theirs.get_logger("transformers.models").warning("of a library")
from huggingface_hub.utils import logging as hub
hub.get_logger("huggingface_hub.file_download").warning("of a library")
from huggingface_hub.utils import tqdm
for _ in tqdm(range(3), desc="of a library"):
    pass
"""


def stderr_of(*words: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_", "PYTHONWARNINGS"))}
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env=kept | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_silence_covers_warnings_log_lines_and_bars() -> None:
    loud = stderr_of("-c", NOISE.format(silence=""))
    assert loud.count("of a library") >= 5
    quiet = "from gama.quiet import silence_libraries; silence_libraries()"
    assert stderr_of("-c", NOISE.format(silence=quiet)) == ""


ASK = """
import sys, warnings
import gama.inference.opening as opening
load = opening.open_asker
def noisy(*given):
    warnings.warn("of a library", FutureWarning)
    return load(*given)
opening.open_asker = noisy
from gama_cli.main import main
sys.argv = ["gama", "ask", "{clip}", "what happened?", "--runtime", "torch", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("words", "shown"), [((), False), (("--debug",), True)], ids=["plain", "debug"])
def test_the_command_line_is_silent_but_for_debug(words: tuple[str, ...], shown: bool) -> None:
    assert ("of a library" in stderr_of("-c", ASK.format(clip=CLIP), *words)) == shown
