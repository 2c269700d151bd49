"""The exported front end: torch's numbers from plain onnxruntime, whatever the batch and the length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from model import small
from numpy.typing import NDArray

from gama.audio import Waveform
from gama.errors import CheckpointError, GamaError
from gama.export import onnx as exporting
from gama.export import parity
from gama.export.metadata import model_hash
from gama.export.onnx import Plan, export_front_end
from gama.export.precision import reduced
from gama.export.tracing import join
from gama.fbank import KaldiFbank
from gama.inference.engine import Gama
from gama.model.processing import GamaFeatureExtractor, GamaProcessor

Float = NDArray[np.float32]


def sound(samples: int, seed: int = 0) -> Float:
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal(samples) + 0.05).astype(np.float32)


def clip(samples: int, seed: int = 0) -> Waveform:
    return Waveform(sound(samples, seed), f"clip {seed}", 16_000, 1)


@pytest.fixture(scope="module")
def gama() -> Gama:
    """A small random model in the released form, with places in its prefix."""
    model = small.model(aggregator="released", prefix_positions=True)
    extractor = GamaFeatureExtractor(feature_size=small.BINS, num_frames=small.FRAMES)
    processor = GamaProcessor(
        extractor, small.tokenizer(), audio_token_id=small.VOCABULARY, num_audio_tokens=small.SOFT
    )
    return Gama(model, processor, name="small")


@pytest.fixture(scope="module")
def folder(gama: Gama, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("small")
    gama.model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def parts(gama: Gama, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The parts traced once: tracing takes seconds."""
    scratch = tmp_path_factory.mktemp("traced")
    builders = {"fbank": exporting.fbank_graph, "encoder": exporting.encoder_graph, "tower": exporting.tower_graph}
    return {name: build(gama.model, scratch) for name, build in builders.items()}


@pytest.fixture
def traced(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, graph in parts.items():

        def copied(*_: Any, graph: Any = graph, **__: Any) -> Any:
            copy = onnx.ModelProto()
            copy.CopyFrom(graph)
            return copy

        monkeypatch.setattr(exporting, f"{name}_graph", copied)


def opened(graph: Any) -> onnxruntime.InferenceSession:
    content = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, clips: list[Float]) -> Float:
    """Rows padded with noise: what lies beyond a row's length must not be heard."""
    waveform = sound(len(clips) * max(map(len, clips)), seed=99).reshape(len(clips), -1)
    for row, samples in zip(waveform, clips, strict=True):
        row[: len(samples)] = samples
    lengths = np.array([len(samples) for samples in clips], dtype=np.int64)
    return np.asarray(session.run(None, {"waveform": waveform, "lengths": lengths})[0])


@pytest.mark.parametrize("lengths", [[400], [9_999], [20_000, 700, 400], [16_000, 16_000]])
def test_prefix_is_that_of_torch_for_any_batch_and_length(
    gama: Gama, parts: dict[str, Any], lengths: list[int]
) -> None:
    clips = [sound(n, seed) for seed, n in enumerate(lengths)]
    made = run(opened(join(parts["fbank"], parts["tower"], "fbank")), clips)
    fbank = gama.processor.feature_extractor(clips)["input_features"]
    with torch.inference_mode():
        expected = gama.model.get_audio_features(fbank).pooler_output.numpy()
    assert made.shape == (len(lengths), small.SOFT, 48)
    # float32 sums in another order, through layers that sharpen differences
    np.testing.assert_allclose(made, expected, atol=2e-4 * np.abs(expected).max())


def test_fbank_is_that_of_torch(parts: dict[str, Any]) -> None:
    clips = [sound(12_345, 1), sound(400, 2), sound(399, 3), sound(120, 4)]
    made = run(opened(parts["fbank"]), clips)
    waveform = torch.zeros(4, 12_345)
    for row, samples in zip(waveform, clips, strict=True):
        row[: len(samples)] = torch.from_numpy(samples)
    lengths = torch.tensor([len(samples) for samples in clips])
    expected = KaldiFbank(small.FRAMES, small.BINS)(waveform, lengths).numpy()
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert np.unique(made[2]).size == np.unique(made[3]).size == 1  # shorter than a frame: padding alone


def test_names_and_open_dimensions(parts: dict[str, Any]) -> None:
    graph = join(parts["fbank"], parts["tower"], "fbank").graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert list(shapes) == ["waveform", "lengths", "prefix"]
    batch = shapes["waveform"][0]
    assert isinstance(batch, str) and isinstance(shapes["waveform"][1], str) and batch != shapes["waveform"][1]
    assert shapes["lengths"] == [batch] and shapes["prefix"][1:] == [small.SOFT, 48]


def test_the_dead_branch_is_not_in_the_graph(gama: Gama, parts: dict[str, Any]) -> None:
    names = [tensor.name for tensor in parts["tower"].graph.initializer]
    assert any("qformer" in name for name in names)
    assert not [n for n in names if "tap_norms" in n or "language_model" in n]
    assert not [n for n in names if "aggregator" in n and "cross" in n]
    tower = sum(p.numel() for p in gama.model.audio_tower.parameters())
    stored = sum(int(np.prod(tensor.dims)) for tensor in parts["tower"].graph.initializer)
    assert stored < 1.1 * tower  # nothing is stored twice


def test_a_transform_by_a_matrix_and_no_loop(parts: dict[str, Any]) -> None:
    operators = {node.op_type for node in parts["fbank"].graph.node}
    assert "MatMul" in operators and not operators & {"DFT", "STFT", "Loop", "Scan", "If"}


@pytest.mark.usefixtures("traced")
def test_export_writes_graph_metadata_and_report(gama: Gama, folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    report = export_front_end(gama, folder, tmp_path / "out", Plan(), [clip(9_000), clip(400, 1)], say=lines.append)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["parity.json", "parity.md", "prefix.onnx"]
    facts = opened(tmp_path / "out" / "prefix.onnx").get_modelmeta().custom_metadata_map
    assert facts["gama.model_sha256"] == model_hash(folder) and len(facts["gama.model_sha256"]) == 64
    assert (facts["gama.part"], facts["gama.precision"]) == ("prefix", "fp32")
    assert json.loads(facts["gama.prefix"]) == [small.SOFT, 48] and json.loads(facts["gama.lineage"]) == []
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report.passed and written["passed"] and len(written["clips"]) == 2 and len(lines) == 2
    for entry in written["clips"]:
        assert entry["cosine"] > 0.99999 and entry["answers"][0] == entry["answers"][1]


@pytest.mark.usefixtures("traced")
def test_large_weights_lie_beside_the_graph(gama: Gama, folder: Path, tmp_path: Path) -> None:
    plan = Plan(external_bytes=10_000, answers=False)
    export_front_end(gama, folder, tmp_path, plan, [clip(5_000)])
    assert (tmp_path / "prefix.onnx.data").stat().st_size > (tmp_path / "prefix.onnx").stat().st_size / 4
    assert run(opened(tmp_path / "prefix.onnx"), [sound(5_000)]).shape == (1, small.SOFT, 48)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("part", ["fbank", "encoder"])
def test_parts(gama: Gama, folder: Path, tmp_path: Path, part: Any) -> None:
    report = export_front_end(gama, folder, tmp_path, Plan(part=part), [clip(5_000)])
    assert report.passed and report.part == part and report.clips[0].answers is None
    assert (tmp_path / f"{part}.onnx").is_file()


@pytest.mark.usefixtures("traced")
def test_drift_fails_by_default(gama: Gama, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parity.LIMITS, "int8", parity.Limits(0.99999999, 1e-9, same_answers=False))
    with pytest.raises(CheckpointError, match=r"int8 graph drifts.*cosine 0\.\d+.*--allow-drift"):
        export_front_end(gama, folder, tmp_path, Plan(precision="int8", answers=False), [clip(5_000)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parity.json", "parity.md"]
    plan = Plan(precision="int8", answers=False, allow_drift=True)
    assert not export_front_end(gama, folder, tmp_path, plan, [clip(5_000)]).passed
    assert (tmp_path / "prefix.onnx").is_file()


def test_changed_answers_count_in_float32_alone() -> None:
    changed = (parity.ClipParity("a", 1.0, 0.0, 0.0, 1.0, ("yes", "no")),)
    reports = {
        p: parity.Report("prefix", p, ("CPUExecutionProvider",), parity.LIMITS[p], changed) for p in parity.LIMITS
    }
    assert {p: r.passed for p, r in reports.items()} == {"fp32": False, "fp16": True, "int8": True}
    assert "yes → no" in reports["int8"].markdown()


def test_16_and_8_bits_leave_the_fbank_alone(gama: Gama, parts: dict[str, Any], tmp_path: Path) -> None:
    features = [gama.processor.feature_extractor([sound(8_000, s)])["input_features"].numpy() for s in range(3)]
    wanted = opened(parts["tower"]).run(None, {"fbank": features[0]})[0]
    marks = {"half": 10, "dynamic": 3, "static": 3}  # FLOAT16, INT8
    for name, precision, clips in (("half", "fp16", []), ("dynamic", "int8", []), ("static", "int8", features)):
        tower = onnx.ModelProto()
        tower.CopyFrom(parts["tower"])
        (tmp_path / name).mkdir()
        whole = join(parts["fbank"], reduced(tower, precision, tmp_path / name, clips), "fbank")  # type: ignore[arg-type]
        onnx.checker.check_model(whole)
        kinds = {t.data_type for t in whole.graph.initializer if not t.name.startswith("fbank/")}
        assert marks[name] in kinds
        assert {t.data_type for t in whole.graph.initializer if t.name.startswith("fbank/")} <= {
            1,
            7,
            9,
        }  # float, int64, bool
        integer = [n for n in whole.graph.node if n.op_type in ("MatMulInteger", "DynamicQuantizeLinear")]
        assert bool(integer) == (name == "dynamic")
        made = run(opened(whole), [sound(8_000, 0)])
        similarity = float((made * wanted).sum() / np.sqrt((made**2).sum() * (wanted**2).sum()))
        assert similarity > 0.9, (name, similarity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 17}, "opset 17 was asked for, 18 to 23"),
        ({"calibration": [clip(400)]}, "calibrate with were given for fp32"),
        ({"part": "fbank", "precision": "fp16"}, "fbank was asked for in fp16"),
    ],
)
def test_what_cannot_be_exported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GamaError, match=message):
        Plan(**options)
