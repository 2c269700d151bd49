"""Shards of features: right values, each content computed once, gone on with after a stop, never wrong in silence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from safetensors import safe_open

from gama.data import shards
from gama.data.shard_index import Digests, Folder, Journal, packed
from gama.data.shards import ShardStore, build, damaged
from gama.errors import AudioError
from gama.fbank import KaldiFbank
from gama.locks import locked
from gama_cli.main import cli


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Noise of 0.5 s, a clip longer than a window, full scale, silence, and another rate."""
    rng = np.random.default_rng(0)
    loud = np.sign(rng.normal(0, 1, 8000))
    sounds = [rng.normal(0, 0.1, 8000), rng.normal(0, 0.1, 169_600), loud, np.zeros(4000), rng.normal(0, 0.1, 9000)]
    paths = [tmp_path / "clips" / f"{name}.wav" for name in "abcde"]
    paths[0].parent.mkdir()
    for path, sound, rate in zip(paths, sounds, (16000, 16000, 16000, 16000, 44100), strict=True):
        soundfile.write(path, sound, rate, subtype="FLOAT")
    return paths


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the clips whose features are computed from now on."""
    names: list[str] = []
    original = shards.fbank_of

    def fbank_of(content: bytes | Path, name: str) -> np.ndarray:
        names.append(Path(name).stem)
        return original(content, name)

    monkeypatch.setattr(shards, "fbank_of", fbank_of)
    return names


def test_half_precision_stays_within_a_thousandth(clips: list[Path], tmp_path: Path) -> None:
    store = ShardStore(clips, tmp_path / "cache")
    assert (len(store), store.frames.tolist()) == (5, [48, 1024, 48, 23, 18])
    for index, path in enumerate(clips[:4]):
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0]).unsqueeze(0)
        expected = KaldiFbank()(samples)[0].numpy()
        assert store[index].dtype == np.float16
        assert np.abs(store[index].astype(np.float32) - expected).max() <= 1e-3


def test_each_content_is_computed_once(clips: list[Path], tmp_path: Path, computed: list[str]) -> None:
    cache = tmp_path / "cache"
    ShardStore(clips, cache)
    moved = tmp_path / "moved.wav"
    shutil.copy(clips[1], moved)
    store = ShardStore([moved, clips[0], moved], cache)
    assert computed == list("abcde")
    assert store.frames.tolist() == [1024, 48, 1024]
    soundfile.write(clips[0], np.ones(1600) / 2, 16000)
    assert ShardStore(clips, cache).frames[0] == 8
    assert computed == [*"abcde", "a"]


def test_unchanged_files_are_not_read_again(clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ShardStore(clips, tmp_path / "cache")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path}"))
    ShardStore(clips, tmp_path / "cache")


def test_a_stopped_run_goes_on(clips: list[Path], tmp_path: Path, computed: list[str]) -> None:
    def stop(done: int) -> None:
        if len(computed) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(clips, tmp_path / "cache", size=2, progress=stop)
    with (tmp_path / "cache" / "paths.jsonl").open("a") as journal:
        journal.write('["/half/a/li')
    built = build(clips, tmp_path / "cache", size=2)
    assert (built.clips, built.computed, built.failed) == (5, 1, ())
    assert computed == list("abcde")
    assert not list((tmp_path / "cache").glob(".*"))


def test_what_a_killed_run_left_is_taken_away(clips: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    old, new = cache / ".aa.1.partial", cache / ".bb.2.partial"
    for partial in (old, new):
        partial.write_bytes(b"half")
    os.utime(old, (0, 0))
    build(clips[:1], cache)
    assert (old.exists(), new.exists()) == (False, True)


def test_others_may_read_a_shard(clips: list[Path], tmp_path: Path) -> None:
    build(clips[:1], tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("fbank-*")
    (tmp_path / "plain").touch()
    assert file.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_shard_is_a_safetensors_file(clips: list[Path], tmp_path: Path) -> None:
    store = ShardStore(clips, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("fbank-*")
    with safe_open(file, framework="np") as opened:
        assert set(opened.keys()) == {"values", "frames", "crc32"}
        assert opened.get_tensor("frames").tolist() == store.frames.tolist()
        assert opened.get_tensor("values").dtype == np.float16
        assert np.array_equal(opened.get_tensor("values")[:48], store[0][:48])
        assert opened.metadata()["keys"].split() == list(store.keys)


def test_halves_are_rounded_as_numpy_does() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 3, 10_000), [0.0, 2049.0, 1e-8]]).astype(np.float32)
    assert np.array_equal(shards.halved(values), values.astype(np.float16))


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut off":
        content = content[:-1000]
    elif how == "empty":
        content = bytearray()
    elif how == "no shard":
        content = bytearray(b"x" * len(content))
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["cut off", "empty", "no shard"])
def test_a_damaged_shard_is_computed_again(clips: list[Path], tmp_path: Path, computed: list[str], how: str) -> None:
    cache = tmp_path / "cache"
    store = ShardStore(clips, cache)
    whole = [store[index].copy() for index in range(5)]
    (file,) = cache.glob("fbank-*")
    damage(file, how)
    again = ShardStore(clips, cache)
    assert computed == list("abcde") * 2
    assert all(np.array_equal(again[index], whole[index]) for index in range(5))


def test_a_damaged_clip_is_computed_again_when_it_is_read(
    clips: list[Path], tmp_path: Path, computed: list[str]
) -> None:
    cache = tmp_path / "cache"
    store = ShardStore(clips, cache)
    whole = [store[index].copy() for index in range(5)]
    (file,) = cache.glob("fbank-*")
    content = bytearray(file.read_bytes())
    header = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + header])["values"]["data_offsets"][0]
    content[8 + header + entry + 100] ^= 1  # a bit of the first clip
    file.write_bytes(content)
    again = ShardStore(clips, cache)
    computed.clear()
    assert all(np.array_equal(again[index], whole[index]) for index in range(5))
    assert computed == ["a"]
    assert len(damaged(cache)) == 1


def test_shards_of_another_front_end_are_not_taken(
    clips: list[Path], tmp_path: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ShardStore(clips[:1], tmp_path / "cache")
    monkeypatch.setattr(shards, "VERSION", 2)
    (tmp_path / "cache" / "paths.jsonl").unlink()
    ShardStore(clips[:1], tmp_path / "cache")
    assert computed == ["a", "a"]


def test_a_store_goes_to_another_process(clips: list[Path], tmp_path: Path) -> None:
    store = ShardStore(clips, tmp_path / "cache")
    expected = store[0]
    sent = pickle.dumps(store)
    assert len(sent) < 20_000
    assert np.array_equal(pickle.loads(sent)[0], expected)


def test_clips_that_cannot_be_used_are_named(clips: list[Path], tmp_path: Path) -> None:
    clips[1].write_bytes(b"RIFF")
    built = build([*clips, tmp_path / "gone.wav"], tmp_path / "cache")
    assert (built.clips, built.computed) == (6, 4)
    assert [path.name for path, _ in built.failed] == ["gone.wav", "b.wav"]
    with pytest.raises(AudioError, match=r"b\.wav"):
        ShardStore(clips, tmp_path / "cache")


def test_the_command_with_two_processes(runner: CliRunner, clips: list[Path], tmp_path: Path) -> None:
    manifest, out = tmp_path / "m.json", tmp_path / "features"
    rows = [{"audio_id": f"{clip.name}", "instruction": "q", "output": "a"} for clip in [*clips, clips[0]]]
    manifest.write_text(json.dumps(rows))
    words = ["prepare", "features", str(manifest), "--out", str(out), "--audio-root", str(tmp_path / "clips")]
    result = runner.invoke(cli, [*words, "--workers", "2", "--shard-size", "3"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"5 of 5 clips in {out}, 5 computed now\n"
    assert len(list(out.glob("fbank-*"))) == 2
    clips[0].unlink()
    result = runner.invoke(cli, [*words, "--workers", "1", "--verify"])
    assert result.exit_code == 1
    assert "a.wav: No such file" in result.stderr and "4 of 5 clips" in result.stderr
    assert "give --engine ray" in runner.invoke(cli, [*words, "--address", "x"]).stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns of its own deprecations
def test_a_ray_cluster_of_two_nodes(clips: list[Path], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'gama-audio[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        built = build(clips, tmp_path / "ray", size=1, engine="ray", address=cluster.address)
        assert (built.clips, built.computed, built.failed) == (5, 5, ())
        assert build(clips, tmp_path / "ray", size=1, engine="ray", address=cluster.address).computed == 0
    finally:
        ray.shutdown()
        cluster.shutdown()
    one, other = ShardStore(clips, tmp_path / "ray"), ShardStore(clips, tmp_path / "local")
    assert all(np.array_equal(one[index], other[index]) for index in range(5))


@pytest.mark.slow
def test_a_killed_run_goes_on(clips: list[Path], tmp_path: Path) -> None:
    many = [clips[0].with_name(f"{index}.wav") for index in range(60)]
    for index, path in enumerate(many):
        soundfile.write(path, np.random.default_rng(index).normal(0, 0.1, 16000), 16000)
    cache = tmp_path / "cache"
    script = (
        "import sys; from pathlib import Path; from gama.data.shards import build; "
        "build([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), size=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(cache), *map(str, many)])
    while not list(cache.glob("fbank-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    there = 2 * len(list(cache.glob("fbank-*")))
    built = build(many, cache, size=2)
    assert 0 < there < 60
    assert (built.clips, built.computed, built.failed) == (60, 60 - there, ())
    one, other = ShardStore(many, cache), ShardStore(many, tmp_path / "whole")
    assert all(np.array_equal(one[index], other[index]) for index in range(60))


def test_clips_are_looked_at_some_after_the_others(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ShardStore([*clips, clips[0]], tmp_path / "whole")
    monkeypatch.setattr(shards, "_CHUNK", 2)
    progress: list[int] = []
    shutil.copy(clips[1], tmp_path / "copy.wav")
    built = build([*clips, clips[0], tmp_path / "copy.wav"], tmp_path / "cache", progress=progress.append)
    assert (built.clips, built.computed, sum(progress)) == (6, 5, 6)
    store = ShardStore([*clips, clips[0]], tmp_path / "cache")
    assert list(store.keys) == list(whole.keys)
    assert all(np.array_equal(store[i], whole[i]) for i in range(6))
    gone = [tmp_path / "gone.wav", *clips, tmp_path / "gone too.wav"]
    assert [path.name for path, _ in build(gone, tmp_path / "cache").failed] == ["gone.wav", "gone too.wav"]


def test_the_index_needs_few_bytes_a_clip(tmp_path: Path) -> None:
    keys = [f"{i:030x}00" for i in range(1, 3001)]  # zeros at the end are part of a digest
    for begin in range(0, 3000, 1000):
        shards._write(tmp_path, keys[begin : begin + 1000], [np.full((1, 128), i, np.float16) for i in range(1000)])
    folder = Folder(tmp_path, shards.VERSION)
    columns = (folder.keys, folder.file, folder.begin, folder.frames, folder.crc32)
    assert sum(column.nbytes for column in columns) / 3000 <= 36
    places = folder.find(packed(keys))
    assert [int(folder.values(place)[0, 0]) for place in places] == [*range(1000)] * 3
    assert list(Digests(folder.keys[places])) == keys
    assert folder.find(packed(["f" * 32])).tolist() == [-1]


def test_the_journal_knows_files_that_have_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"1234")
    facts = file.stat()
    line = json.dumps([str(file), 4, facts.st_mtime_ns, "ab" * 16])
    (tmp_path / "paths.jsonl").write_text(line.replace("ab", "cd") + "\n" + line + '\n["cut off')
    journal = Journal(tmp_path)
    assert journal.digest(str(file), facts) == "ab" * 16  # the last line about a file is the one that counts
    assert journal.digest(str(tmp_path / "b.wav"), facts) is None
    file.write_bytes(b"12345")
    assert journal.digest(str(file), file.stat()) is None
    assert Journal(tmp_path / "none").digest(str(file), facts) is None


def test_a_folder_that_is_only_read_takes_no_lock(
    clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(clips[:2], tmp_path / "cache")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("locked")

    monkeypatch.setattr("gama.data.shards.locked", forbidden)
    assert build(clips[:2], tmp_path / "cache").computed == 0
    with pytest.raises(AssertionError, match="locked"):
        build(clips, tmp_path / "cache")


def test_what_another_process_has_added_meanwhile_is_not_computed_again(clips: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    built: list[int] = []
    with locked(cache, "these features", inside=True):
        second = threading.Thread(target=lambda: built.append(build(clips[:2], cache).computed))
        second.start()
        time.sleep(0.5)
        build(clips[:2], tmp_path / "other")
        for file in (tmp_path / "other").iterdir():
            shutil.copy(file, cache)
    second.join(60)
    assert built == [0]
    assert not (cache / ".lock").exists()


def test_temporary_files_of_a_killed_run_are_taken_away(clips: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    old, new, other = cache / ".a.1-0123abcd.tmp", cache / ".b.2-0123abcd.tmp", cache / "mine.tmp"
    for file in (old, new, other):
        file.write_bytes(b"half")
    for file in (old, other):
        os.utime(file, (0, 0))
    build(clips[:1], cache)
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)
