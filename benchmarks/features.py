"""Where features are best kept: clips a second read at random from safetensors shards, Arrow, and one memory map.

    python benchmarks/features.py --clips 2048 --folder /tmp/bench-features    # needs: pip install datasets

Writes the same random features in four ways: shards of 256 clips as ``gama prepare features`` writes them; Arrow tables
through ``datasets``, once as arrays of float16 and once as bytes; one .npy file. Then reads all clips in random order,
in turns, so that what else the machine does falls on all of them. Every reading makes an array of its own, as a
collator needs; the shards are read with and without their checksums. The page cache is warm. Prints a table of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gama.data import shards
from gama.data.shard_index import Folder, packed
from gama.data.shards import FRAMES, digest

Read = Callable[[int], np.ndarray]


def values(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, FRAMES, shards.BINS)).astype(np.float16)


def written(count: int, folder: Path) -> list[str]:
    """Write what is not there yet; the digests of the clips."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [digest(str(index).encode()) for index in range(count)]
    if (folder / "done").exists():
        return keys
    from datasets import Array2D, Dataset, Features, Value  # type: ignore[import-not-found]

    clips = values(count)
    np.save(folder / "whole.npy", clips)
    for begin in range(0, count, shards.SHARD):
        part = slice(begin, begin + shards.SHARD)
        shards._write(folder, keys[part], list(clips[part]))
    features = Features({"fbank": Array2D((FRAMES, shards.BINS), "float16")})
    rows = Dataset.from_generator(lambda: ({"fbank": clip} for clip in clips), features=features, cache_dir=str(folder))
    rows.save_to_disk(str(folder / "arrow"))
    features = Features({"fbank": Value("large_binary")})
    rows = Dataset.from_generator(
        lambda: ({"fbank": clip.tobytes()} for clip in clips), features=features, cache_dir=str(folder / "bytes")
    )
    rows.save_to_disk(str(folder / "arrow-bytes"))
    (folder / "done").touch()
    return keys


def ways(keys: list[str], folder: Path) -> dict[str, Read]:
    from datasets import load_from_disk

    kept = Folder(folder, shards.VERSION)
    places = kept.find(packed(keys))
    whole = np.load(folder / "whole.npy", mmap_mode="r")
    arrow = load_from_disk(str(folder / "arrow")).with_format("numpy")
    raw = load_from_disk(str(folder / "arrow-bytes"))

    def checked(index: int) -> np.ndarray:
        found = kept.read(int(places[index]))
        assert found is not None
        return found.copy()

    def unchecked(index: int) -> np.ndarray:
        return kept.values(int(places[index])).copy()

    return {
        "safetensors shards, checksum": checked,
        "safetensors shards": unchecked,
        "Arrow (datasets), arrays": lambda index: np.array(arrow[index]["fbank"]),
        "Arrow (datasets), bytes": lambda index: (
            np.frombuffer(raw[index]["fbank"], np.float16).reshape(FRAMES, -1).copy()
        ),
        "one .npy memory map": lambda index: whole[index].copy(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    read = ways(written(given.clips, given.folder), given.folder)
    order = np.random.default_rng(1).permutation(given.clips)
    for way in read.values():  # the page cache
        for index in order:
            way(int(index))
    rates: dict[str, list[float]] = {name: [] for name in read}
    for _ in range(given.turns):
        for name, way in read.items():
            begin = time.perf_counter()
            for index in order:
                way(int(index))
            rates[name].append(given.clips / (time.perf_counter() - begin))
    print("| kept as | clips/s |\n|---|---|")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} |")


if __name__ == "__main__":
    main()
