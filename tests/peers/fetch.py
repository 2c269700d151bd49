"""transformers' own test suites, from the source distribution of the installed transformers.

``fetch()`` puts them on ``sys.path`` as the package ``transformers_tests``: its ``test_modeling_common`` holds
ModelTesterMixin, ``test_processing_common`` ProcessorTesterMixin and so on. Nothing of theirs is part of this
repository: pip downloads the source distribution once a version into a cache folder of the user.

The source distribution holds the files right under ``tests/`` and leaves out the folders there, GenerationTesterMixin
(``tests/generation``) among them. ``TRANSFORMERS_TESTS`` may name the ``tests`` folder of a checkout of the same
version, which is used whole instead. Without it, empty classes stand for what is left out; ``left_out()`` names it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = "transformers_tests"

_STANDINS = {
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "../fetch_hub_objects_for_ci.py": "def url_to_local_path(url, *args, **kwargs):\n    return url\n",
}
"""What the suites import from the folders that the source distribution leaves out."""


@cache
def fetch() -> Path:
    """The folder of the package ``transformers_tests``, fetched where it is not yet there, and put on ``sys.path``.

    Raises:
        RuntimeError: where pip cannot download the source distribution; with pip's own words.
        FileNotFoundError: where ``TRANSFORMERS_TESTS`` holds no suites.
    """
    checkout = os.environ.get("TRANSFORMERS_TESTS")
    package = _link(Path(checkout)) if checkout else _cached()
    if str(package.parent) not in sys.path:
        sys.path.append(str(package.parent))
    return package


def left_out() -> frozenset[str]:
    """The files that are stand-ins here, relative to ``tests/``."""
    package = fetch()
    files = {name: package / name for name in _STANDINS}
    return frozenset(name for name, file in files.items() if file.is_file() and file.read_text() == _STANDINS[name])


def _cached() -> Path:
    number = version("transformers")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gama-peers" / f"transformers-{number}"
    if not (folder / PACKAGE).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            package = _unpacked(_downloaded(number, Path(work)), Path(work))
            os.rename(package, folder / PACKAGE)  # last: a folder that is there is whole
    _stand_in(folder / PACKAGE)
    for directory in (folder / PACKAGE, *(path for path in (folder / PACKAGE).rglob("*") if path.is_dir())):
        (directory / "__init__.py").touch()
    return folder / PACKAGE


def _downloaded(number: str, folder: Path) -> Path:
    source = ["--no-deps", "--no-binary", "transformers", f"transformers=={number}"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *source],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(folder.glob("transformers-*.tar.gz"))
    if done.returncode or len(archives) != 1:
        raise RuntimeError(f"pip did not download the source distribution of transformers {number}: {done.stderr}")
    return archives[0]


def _unpacked(archive: Path, folder: Path) -> Path:
    package = folder / PACKAGE
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, inside = member.name.partition("/")
            if member.isfile() and inside.startswith("tests/"):
                _write(package / inside.removeprefix("tests/"), tar.extractfile(member).read())  # type: ignore[union-attr]
    return package


def _stand_in(package: Path) -> None:
    for name, text in _STANDINS.items():
        if not (package / name).is_file():
            _write(package / name, text.encode())


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _link(checkout: Path) -> Path:
    """The checkout under the name of the package, in a folder of its own."""
    if not (checkout / "generation" / "test_utils.py").is_file():
        raise FileNotFoundError(f"TRANSFORMERS_TESTS is {checkout}, which has no generation/test_utils.py")
    folder = Path(tempfile.mkdtemp(prefix="gama-peers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / PACKAGE).symlink_to(checkout.resolve(), target_is_directory=True)
    name = "../fetch_hub_objects_for_ci.py"  # beside the folder of tests, which the link leaves behind
    _write(folder / Path(name).name, _STANDINS[name].encode())
    return folder / PACKAGE
