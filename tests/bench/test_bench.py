"""What is counted, measured, shown and compared by ``gama bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gama.bench import machine, report, work
from gama.bench.running import FORMAT, MEASURES, Plan, measure
from gama.bench.timing import Timing, alternate
from gama.errors import GamaError
from gama_cli.main import cli

RELEASED = {
    "aggregator": "released",
    "encoder_config": {
        "num_frames": 1024,
        "num_mel_bins": 128,
        "patch_size": 16,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "stem": "linear",
        "time_pool": 1,
    },
    "qformer_config": {
        "num_query_tokens": 32,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "cross_attention_frequency": 2,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
}


def test_operations_of_the_released_tower() -> None:
    """110.0e9 were counted in the original, 0.6e9 of them in the dropped cross-attention."""
    assert work.tower_operations(RELEASED) == pytest.approx(109.4e9, rel=2e-3)


def test_operations_as_torch_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from gama.model.configuration import GamaConfig
    from gama.model.tower import GamaAudioTower

    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "num_hidden_layers": 3}
    config = GamaConfig(
        encoder_config={**sizes, "stem": "conv", "stem_channels": [8, 16, 32], "taps": [0, 1]},
        qformer_config=sizes,
        text_config={"model_type": "llama", "hidden_size": 48, "vocab_size": 64, "num_attention_heads": 2},
        aggregator="paper",
    )
    tower = GamaAudioTower(config)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    monkeypatch.setattr("gama.products._kinds", frozenset)  # the counter knows PyTorch's own products alone
    # and those of attention where they are products
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        tower(torch.zeros(1, 1024, 128))
    assert work.tower_operations(config.to_dict()) == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_language_model() -> None:
    text = RELEASED["text_config"]
    layers, head = work.text_parameters(text) or (0.0, 0.0)
    assert layers + 2 * head == pytest.approx(6.738e9, rel=1e-3)  # LLaMA-2-7B
    assert work.token_bytes(text, "bfloat16", "none") == pytest.approx(2 * (layers + head))
    four = work.token_bytes(text, "bfloat16", "4bit") or 0.0
    assert 0.5 * layers < four - 2 * head < 0.52 * layers
    assert work.prefill_operations({"model_type": "opt"}, 10) is None


def test_timing() -> None:
    assert Timing.of([3.0, 1.0, 2.0]) == Timing(2.0, 1.0, 3.0, 3)
    assert Timing.of([1.0, 2.0, 3.0, 4.0, 100.0]) == Timing(3.0, 2.0, 4.0, 5)
    with pytest.raises(ValueError, match="no value"):
        Timing.of([])


def test_ways_take_turns() -> None:
    order: list[str] = []
    ticks = iter(range(100))
    ways = {name: lambda name=name: order.append(name) for name in "ab"}  # type: ignore[misc]
    times = alternate(ways, 3, warm=1, clock=lambda: float(next(ticks)))
    assert order == list("abababab")
    assert times["a"] == Timing(1.0, 1.0, 1.0, 3)


def test_rates_are_rates() -> None:
    found = machine.rates(1, side=64, turns=1, read=2**20)
    assert found.read > 1e8 and found.float32 > 1e7


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return measure(Plan({"name_or_dir": None}, ("onnx",), starts=1, repeats=2, tokens=4, quick=True))


def test_the_packaged_model(found: dict[str, Any]) -> None:
    (run,) = found["runs"]
    measured = {row["name"]: row for row in run["measures"]}
    assert set(measured) == set(MEASURES) - {"fbank", "tower"}
    assert list(measured) == [name for name in MEASURES if name in measured]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in measured.values())
    parts = sum(measured[name]["median"] for name in ("import", "load", "first answer"))
    assert measured["cold start"]["median"] > parts
    limited = {name for name, row in measured.items() if row["limit"]}
    assert {"cold start", "import", "decode", "hear", "prefill", "token", "load", "memory"} <= limited
    assert json.loads(json.dumps(found)) == found


def test_the_table(found: dict[str, Any]) -> None:
    rows = list(report.rows(found["runs"][0]))
    assert {len(row) for row in rows} == {len(report.HEADER)}
    assert any(row[0].startswith("token (") and row[0].endswith("/s)") for row in rows)
    assert report.title(found["runs"][0]) == "onnxruntime, cpu, float32"


def scaled(found: dict[str, Any], name: str, factor: float) -> dict[str, Any]:
    other: dict[str, Any] = json.loads(json.dumps(found))
    for row in other["runs"][0]["measures"]:
        if row["name"] == name:
            row |= {key: factor * row[key] for key in ("median", "low", "high")}
    return other


def test_compare_marks_what_lies_beyond_the_spread(found: dict[str, Any], tmp_path: Path) -> None:
    one, other = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text(json.dumps(found))
    other.write_text(json.dumps(scaled(found, "hear", 50.0)))
    result = CliRunner().invoke(cli, ["bench", "--compare", str(one), str(other)])
    assert result.exit_code == 0, result.stderr
    marked = [line.split()[0] for line in result.stdout.splitlines() if report.BEYOND in line]
    assert marked == ["hear"]
    assert "50.00" in result.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1, 2]", "no output of gama bench"), ("{", "cannot be read"), ('{"gama_bench": 99}', f"{FORMAT} was expected")],
)
def test_compare_refuses_other_files(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    result = CliRunner().invoke(cli, ["bench", "--compare", str(file), str(file)])
    assert result.exit_code == 1
    assert said in result.stderr and "gama bench --json" in result.stderr


def test_nothing_in_common(found: dict[str, Any]) -> None:
    other = json.loads(json.dumps(found))
    other["runs"][0]["runtime"]["dtype"] = "bfloat16"
    with pytest.raises(GamaError, match="nothing in common"):
        list(report.compared(found, other))
    other["machine"]["cpu"] = "abacus"
    assert any("abacus" in text for text in report.warnings(found, other))


def test_onnxruntime_does_not_do_everything() -> None:
    result = CliRunner().invoke(cli, ["bench", "--runtime", "onnx", "--quant", "4bit"])
    assert result.exit_code == 1
    assert "--runtime torch" in result.stderr


def test_unknown_model() -> None:
    result = CliRunner().invoke(cli, ["bench", "--model", "no-such-model"])
    assert result.exit_code == 1
    assert "no-such-model" in result.stderr


def test_a_measurement_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(GamaError):
        measure(Plan({"name_or_dir": None, "provider": "nobody"}, ("onnx",), starts=1, repeats=1, quick=True))
