"""Weight files and model folders that were damaged, forged or blown up: answered, or refused in a line of ours."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import struct
import tempfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torture.worker_pool import Result, judged, run_isolated

QUESTION = "what happened?"

_BIG = (2**31, 2**63, 2**64, 10**30, -1, -(2**63), 10**400)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 7, 1.5, -0.0, 1e308, float("nan"), float("inf"), *_BIG),
    *("", "x", "0", "\ud800", "a" * 100_000, "../../etc/passwd", "\0", "torch.float32", "<audio>", "{{ 1 // 0 }}"),
    *([], {}, [[]], [0], [10**6] * 3, {"": None}, {"model_type": "bert"}),
)
_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5\nsize 12345\n"
_PAGE = b"<!DOCTYPE html><html><title>Virus scan warning</title></html>"


def run(seed: int, count: int, *, processes: int = 2) -> Result:
    """Try ``count`` inputs: seven weight files to three model folders."""
    folders = count * 3 // 10
    files = run_files(seed, count - folders, processes=processes)
    both = (files, run_folders(seed, folders, processes=processes))
    return Result(count, sum(r.held for r in both), sum((r.failures for r in both), ()))


def run_files(seed: int, count: int, *, processes: int = 2) -> Result:
    """Try damaged weight files by ``gama inspect``, and some by ``gama convert``."""
    return run_isolated("torture.bad_checkpoints:attempt_file", [(seed, i) for i in range(count)], processes=processes)


def run_folders(seed: int, count: int, *, processes: int = 2) -> Result:
    """Try damaged model folders by ``gama inspect``, and by loading and asking on both engines."""
    return run_isolated(
        "torture.bad_checkpoints:attempt_folder", [(seed, i) for i in range(count)], processes=processes
    )


# -- weight files ------------------------------------------------------------------------------------------------------


def attempt_file(seed: int, index: int) -> tuple[str, str]:
    """Write a damaged weight file and look at it: the verdict."""
    chance = random.Random(f"file {seed} {index}")
    with tempfile.TemporaryDirectory(prefix="gama-bad-file-") as scratch:
        how = chance.choice(_FILES)
        path = how(Path(scratch), chance)
        if chance.random() < 0.5:
            _scratch_bytes(path, chance)
        kind, text = judged(lambda: _look(path, convert=chance.random() < 0.2))
        return kind, f"{how.__name__} ({path.name}): {text}"


def _look(path: Path, *, convert: bool) -> str | None:
    from gama.checkpoints.conversion import Request
    from gama.checkpoints.conversion import convert as make
    from gama.checkpoints.inspection import inspect

    inspect(path)
    if convert:
        from checkpoints import small

        base = small.write_base(path.parent / "base")
        make(Request(audio=(path,), base=base), path.parent / "out")
    return None


def _stage() -> dict[str, Any]:
    from checkpoints import small

    return dict(small.stage_weights())


def _safetensors(folder: Path, chance: random.Random) -> Path:
    save_file({k: v.clone().contiguous() for k, v in _stage().items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


def _header(folder: Path, chance: random.Random) -> Path:
    """A header of safetensors with other values in it."""
    path = _safetensors(folder, chance)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for _ in range(chance.choice((1, 1, 3))):
        _change(header, chance)
    text = chance.choice([json.dumps(header).encode("utf-8", "surrogatepass"), b"[" * 50_000, b'{"a":' * 50_000])
    if chance.random() < 0.9:
        text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


def _many_entries(folder: Path, chance: random.Random) -> Path:
    """A header of very many tensors without a byte."""
    text = (
        "{" + ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(300_000)) + "}"
    ).encode()
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return folder / "w.safetensors"


def _zipped(folder: Path, chance: random.Random) -> Path:
    torch.save(_stage(), folder / "w.bin")
    return folder / "w.bin"


def _old(folder: Path, chance: random.Random) -> Path:
    torch.save(_stage(), folder / "w.pth", _use_new_zipfile_serialization=False)
    return folder / "w.pth"


def _strange_values(folder: Path, chance: random.Random) -> Path:
    """Weights beside and among values of every kind, under keys of every kind."""
    weights: dict[Any, Any] = _stage()
    values: list[Any] = [
        *(np.zeros(3), np.float64(0.5), np.random.RandomState(0).get_state(), np.random.default_rng(0)),
        *(Namespace(lr=1e-4, nested=Namespace(x=1)), {1, 2}, 1j, b"x", bytearray(8), "\ud800", 10**400, None),
        *(torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.float8_e4m3fn), torch.zeros(2).bool()),
        *(torch.zeros(2, 2).to_sparse(), torch.zeros(1).expand(10**9), torch.zeros(0, 2**40), torch.zeros(()), [[[]]]),
        *(torch.zeros(2, device="meta"), torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)),
        *(torch.zeros(2, dtype=torch.uint16), torch.nn.Parameter(torch.zeros(2)), torch.float32, torch.Size([2])),
    ]
    for _ in range(chance.choice((1, 2, 5))):
        key = chance.choice(
            [chance.choice(list(weights)), "x", 7, None, ("a", 1), b"k", "\ud800", "", 1.5, "a" * 10**6]
        )
        weights[key] = chance.choice(values)
    outer = chance.choice([weights, {"model": weights}, {"state_dict": weights, "args": Namespace(a=1)}, [weights], {}])
    torch.save(outer, folder / "w.pt", _use_new_zipfile_serialization=chance.random() < 0.7)
    return folder / "w.pt"


def _described(folder: Path, chance: random.Random) -> Path:
    """The pickle of a sound archive with some of its bytes changed, under a checksum that fits."""
    torch.save(_stage(), folder / "whole.bin")
    with zipfile.ZipFile(folder / "whole.bin") as old, zipfile.ZipFile(folder / "w.bin", "w") as new:
        for entry in old.infolist():
            data = bytearray(old.read(entry))
            if entry.filename.endswith("data.pkl"):
                for _ in range(chance.choice((1, 3, 10))):
                    data[chance.randrange(len(data))] = chance.randrange(256)
            new.writestr(entry.filename, bytes(data))
    (folder / "whole.bin").unlink()
    return folder / "w.bin"


def _bomb(folder: Path, chance: random.Random) -> Path:
    """An archive whose pickle unfolds to far more than it has bytes."""
    bombs = [
        b"\x80\x02" + b"]" * 300_000_000 + b".",
        b"\x80\x02" + b"(" * 100_000_000 + b".",
        b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
        b"\x80\x02ctorch\nTensor\n(J\xff\xff\xff\x7ftR.",
        pickle.dumps({str(i): [] for i in range(1000)}, protocol=2),
    ]
    method = chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
    pickled = chance.choice(bombs if method == zipfile.ZIP_DEFLATED else bombs[2:])
    with zipfile.ZipFile(folder / "w.bin", "w", method) as archive:
        archive.writestr("w/data.pkl", pickled)
        archive.writestr("w/version", b"3\n")
        archive.writestr("w/byteorder", b"little")
    return folder / "w.bin"


def _other(folder: Path, chance: random.Random) -> Path:
    """A file of another kind."""
    noise = chance.randbytes(5000)
    kinds = [_LFS, _PAGE, b"", b"GGUF" + noise, noise, b"PK\x03\x04" + noise, b"\x80\x02" + noise, b"\x80\x04.", b"{}"]
    path = folder / chance.choice(["w.bin", "w.pth", "w.pt", "w.safetensors", "w.ckpt", "w.zip"])
    path.write_bytes(chance.choice(kinds))
    return path


def _script(folder: Path, chance: random.Random) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "script.pt"))
    return folder / "script.pt"


def _packed(folder: Path, chance: random.Random) -> Path:
    """A zip archive around a weight file."""
    inner = _zipped(folder, chance)
    with zipfile.ZipFile(folder / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, chance.choice(["a/pytorch_model.bin", "../out.bin", "/x.bin", "pytorch_model.bin"]))
    inner.unlink()
    return folder / "w.zip"


_FILES: tuple[Callable[[Path, random.Random], Path], ...] = (
    *(_safetensors, _header, _header, _header, _zipped, _old, _strange_values, _strange_values, _strange_values),
    *(_described, _described, _described, _other, _script, _packed, _packed, _bomb, _many_entries),
)


def _scratch_bytes(path: Path, chance: random.Random) -> None:
    """Change bytes anywhere in a file: flipped, cut, put in, taken out, set to zero."""
    data = bytearray(path.read_bytes())
    if not data:
        return
    near = min(len(data), chance.choice((64, 4096, len(data))))
    at = chance.randrange(near) if chance.random() < 0.7 else len(data) - 1 - chance.randrange(near)
    how = chance.choice(["flip", "flip", "cut", "insert", "remove", "zero", "double"])
    if how == "flip":
        for _ in range(chance.choice((1, 4, 32))):
            data[max(0, min(len(data) - 1, at + chance.randrange(-64, 64)))] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "insert":
        data[at:at] = chance.randbytes(chance.choice((1, 7, 4096)))
    elif how == "remove":
        del data[at : at + chance.choice((1, 7, 4096))]
    elif how == "zero":
        size = len(data[at : at + 512])
        data[at : at + size] = bytes(size)
    else:
        data += data[at:]
    path.write_bytes(data)


# -- model folders -----------------------------------------------------------------------------------------------------


def attempt_folder(seed: int, index: int) -> tuple[str, str]:
    """Damage a copy of the packaged model, and inspect, load and ask it: the verdict."""
    from gama.checkpoints.bundled import model_folder
    from gama.checkpoints.file_hashes import FILE

    chance = random.Random(f"folder {seed} {index}")
    with tempfile.TemporaryDirectory(prefix="gama-bad-folder-") as scratch:
        left_out = shutil.ignore_patterns(FILE) if chance.random() < 0.9 else None
        folder = Path(shutil.copytree(model_folder(), Path(scratch) / "model", ignore=left_out))
        how = chance.choice(_FOLDERS)
        told = how(folder, chance)
        verdicts = [judged(lambda: _inspected(folder)), judged(lambda: _asked(folder, "torch"))]
        verdicts.append(judged(lambda: _asked(folder, "onnx")))
        kind, text = next((v for v in verdicts if v[0] != "held"), ("held", " | ".join(text for _, text in verdicts)))
        return kind, f"{how.__name__} {told}: {text}"


def _inspected(folder: Path) -> None:
    from gama.checkpoints.inspection import inspect

    inspect(folder)


def _asked(folder: Path, runtime: Any) -> None:
    import gama

    gama.load(folder, runtime=runtime).ask(None, QUESTION, max_new_tokens=3)


def _settings(folder: Path, chance: random.Random) -> str:
    """Another value somewhere in a file of JSON."""
    names = ["config.json"] * 4 + ["processor_config.json", "tokenizer_config.json", "tokenizer.json"] * 2
    file = folder / chance.choice([*names, "generation_config.json"])
    table = json.loads(file.read_text())
    part = table
    if file.name == "config.json" and chance.random() < 0.8:
        part = table[chance.choice(["text_config", "encoder_config", "qformer_config"])]
    told = [_change(part, chance) for _ in range(chance.choice((1, 1, 2)))]
    file.write_text(json.dumps(table))
    return f"{file.name} {told}"


def _broken_json(folder: Path, chance: random.Random) -> str:
    names = sorted(path.name for path in folder.glob("*.json"))
    file = folder / chance.choice(names)
    text = file.read_bytes()
    kinds = [
        b"",
        b"[]",
        b"null",
        b"3",
        b'"x"',
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        text[: len(text) // 2],
    ]
    kinds += [b'{"a":' * 300 + b"1" + b"}" * 300, b"1" * 10_000, _LFS, _PAGE, text + b"\0"]
    chosen = chance.choice(kinds)
    file.write_bytes(chosen)
    return f"{file.name} = {chosen[:20]!r}"


def _bytes(folder: Path, chance: random.Random) -> str:
    file = folder / chance.choice(sorted(path.name for path in folder.iterdir()))
    _scratch_bytes(file, chance)
    return f"{file.name} scratched"


def _missing(folder: Path, chance: random.Random) -> str:
    file = folder / chance.choice(sorted(path.name for path in folder.iterdir()))
    file.unlink()
    if chance.random() < 0.2:
        file.mkdir()
    return f"{file.name} gone"


def _stand_in(folder: Path, chance: random.Random) -> str:
    file = folder / chance.choice(sorted(path.name for path in folder.iterdir()))
    file.write_bytes(chance.choice([_LFS, _PAGE]))
    return f"{file.name} stands in"


def _tensors(folder: Path, chance: random.Random) -> str:
    """Other tensors: integers, shapes, NaN, zeros, one too many, one too few."""
    tensors = load_file(folder / "model.safetensors")
    key = chance.choice(sorted(tensors))
    how = chance.choice(["int", "shape", "nan", "zero", "all zero", "gone", "more", "head", "float64", "bool", "huge"])
    old = tensors[key]
    if how in ("int", "float64", "bool"):
        tensors[key] = old.to({"int": torch.int32, "float64": torch.float64, "bool": torch.bool}[how])
    elif how == "shape":
        tensors[key] = chance.choice(
            [old.reshape(-1), old.reshape(-1)[:1], old.reshape(-1)[:0], old.unsqueeze(0)]
        ).clone()
    elif how in ("nan", "zero", "huge"):
        tensors[key] = (
            torch.full_like(old, {"nan": float("nan"), "zero": 0.0, "huge": 6e4}[how])
            if old.is_floating_point()
            else old
        )
    elif how == "all zero":
        tensors = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    elif how == "gone":
        del tensors[key]
    else:
        tensors["language_model.lm_head.weight" if how == "head" else f"{key}.more"] = torch.rand(2048, 192).half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return f"{key} {how}"


def _large(folder: Path, chance: random.Random) -> str:
    """Sizes that no machine has room for."""
    file = folder / "config.json"
    table = json.loads(file.read_text())
    part = chance.choice(["text_config", "encoder_config", "qformer_config"])
    sizes = [name for name, value in table[part].items() if type(value) is int and value > 1]
    name = chance.choice(sizes)
    table[part][name] = chance.choice([10**5, 10**6, 10**7, 10**9])
    file.write_text(json.dumps(table))
    return f"{part}.{name} = {table[part][name]}"


_FOLDERS: tuple[Callable[[Path, random.Random], str], ...] = (
    *(_settings, _settings, _settings, _broken_json, _broken_json, _bytes, _missing, _stand_in, _tensors, _tensors),
    *(_large, _large),
)


def _change(table: Any, chance: random.Random) -> str:
    """Put an odd value somewhere into a table, or take something out of it."""
    path: list[Any] = []
    while isinstance(table, (dict, list)) and table:
        key = chance.choice(sorted(table)) if isinstance(table, dict) else chance.randrange(len(table))
        path.append(key)
        if not isinstance(table[key], (dict, list)) or not table[key] or chance.random() < 0.3:
            if chance.random() < 0.1:
                del table[key]
                return f"{path} gone"
            table[key] = chance.choice(_ODD)
            return (
                f"{path} = {str(table[key])[:40]!r}"
                if not isinstance(table[key], int)
                else f"{path} = {table[key] % 10**40}"
            )
        table = table[key]
    return "nothing"
