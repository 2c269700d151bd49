"""Curves out of metrics: what is read, where it stands, and what is drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gama.errors import GamaError
from gama.training.plotting import in_a_row, read_curve, smooth
from gama_cli.main import cli

PNG = b"\x89PNG"


def write_run(folder: Path, steps: int, first: float = 4.0) -> Path:
    folder.mkdir(parents=True)
    lines = [{"step": s, "loss": first / s, "learning_rate": 1e-3 * s} for s in range(1, steps + 1)]
    lines[-1]["eval_loss"] = 2.5
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 99, "lo')  # a run that is still going
    return folder


def test_what_a_run_wrote(tmp_path: Path) -> None:
    curve = read_curve(write_run(tmp_path / "stage1", 3))
    assert (curve.name, curve.steps, curve.losses) == ("stage1", (1, 2, 3), (4.0, 2.0, 4 / 3))
    assert curve.rates == (1e-3, 2e-3, 3e-3)
    assert curve.tests == ((3, 2.5),)
    assert read_curve(tmp_path / "stage1" / "metrics.jsonl") == curve
    with pytest.raises(GamaError, match=r"no run of gama train: metrics.jsonl is not there"):
        read_curve(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(GamaError, match="no step is written in it yet"):
        read_curve(tmp_path)


def test_stages_stand_in_a_row(tmp_path: Path) -> None:
    curves = [read_curve(write_run(tmp_path / str(n), n)) for n in (3, 5, 2)]
    assert in_a_row(curves) == [0, 3, 8]


def test_smoothing_keeps_means_and_lengths() -> None:
    assert smooth([1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]
    values = [float(i % 2) for i in range(400)]
    assert len(smooth(values)) == 400
    assert all(0.3 < value < 0.7 for value in smooth(values))


def test_the_command_draws(runner: CliRunner, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [str(write_run(tmp_path / name, 40)) for name in ("stage1", "stage2")]
    out = tmp_path / "pictures" / "curves.png"
    done = runner.invoke(cli, ["train", "plot", *runs, "-o", str(out)])
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"wrote {out}\n")
    assert out.read_bytes()[:4] == PNG
    one, both = tmp_path / "one.svg", tmp_path / "both.svg"
    assert runner.invoke(cli, ["train", "plot", runs[0], "-o", str(one)]).exit_code == 0
    assert runner.invoke(cli, ["train", "plot", *runs, "--overlay", "-o", str(both)]).exit_code == 0
    assert "stage2" not in one.read_text()
    assert both.read_text().count("<path") > one.read_text().count("<path")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["both.svg", "one.svg"]
    done = runner.invoke(cli, ["train", "plot", runs[0], "-o", str(tmp_path / "curves.doc")])
    assert (done.exit_code, "no picture ends in '.doc'" in done.stderr) == (1, True)


def test_without_matplotlib(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = runner.invoke(cli, ["train", "plot", str(write_run(tmp_path / "a", 2)), "-o", str(tmp_path / "a.png")])
    assert done.exit_code == 1
    assert done.stderr == "error: curves are drawn by the package matplotlib (pip install 'gama-audio[plot]')\n"


def test_train_is_still_a_command(runner: CliRunner) -> None:
    bare = runner.invoke(cli, ["train"])
    assert (bare.exit_code, "missing option '--stage'" in bare.stderr) == (2, True)
    assert runner.invoke(cli, ["train", "plot"]).exit_code == 2
    help_text = runner.invoke(cli, ["train", "--help"]).stdout
    assert "--stage" in help_text and "plot" in help_text
    assert runner.invoke(cli, ["train", "nothing"]).exit_code == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": {}, "loss": 1}', "'step' is {}, expected a number"),
        ('{"step": 1, "loss": [[]]}', r"'loss' is \[\[\]\], expected a number"),
        ('{"step": 1.5, "loss": 1}', "'step' is 1.5, expected a whole number"),
        ('{"step": NaN, "loss": 1}', "'step' is nan, expected a whole number"),
        ('{"step": 1, "loss": 1, "eval_loss": "x"}', "'eval_loss' is 'x', expected a number"),
    ],
)
def test_lines_that_hold_no_numbers_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n' + line + "\n")
    with pytest.raises(GamaError, match=f"metrics.jsonl: line 2: {message}"):
        read_curve(tmp_path)
