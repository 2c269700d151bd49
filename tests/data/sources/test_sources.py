"""Every data set, from a tiny folder of the shape in which it is given out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gama.data.manifest import read
from gama.data.sources.data_set import listed, rows_of
from gama.data.sources.preparing import MODULES, data_set, prepare
from gama.errors import GamaError, ManifestError
from gama_cli.main import cli

Files = dict[str, str]

STRONG = """segment_id\tstart_time_seconds\tend_time_seconds\tlabel
b0RFKhbpFJA_30000\t4.5\t10.0\t/m/bark
b0RFKhbpFJA_30000\t0.0\t1.25\t/m/speech
b0RFKhbpFJA_30000\t2.0\t3.0\t/m/speech
s9d-2nhuJCQ_0\t0.0\t10.0\t/m/bark
"""
FSD_DEV = """fname,labels,mids,split
64760,"Electric_guitar,Guitar,Crash_cymbal_and_bells","/m/a,/m/b,/m/c",train
16399,Rain,/m/r,val
7,Gone,/m/g,train
"""
AUDIOSET = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/speech,/m/bark"
Y1bcdefghij, 0.000, 10.000, "/m/unknown"
"""
CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
VOCAL = {"data": [{"wav": "/data/sls/x/f0003_0_throatclearing.wav", "labels": "/m/01hsr_"}]}
NOTE = {"instrument_family_str": "bass", "instrument_source_str": "acoustic", "pitch": 24}
COMPA = [
    {
        "audio_id": "/fs/x/Y0123456789a.wav",
        "dataset": "Audioset_Strong",
        "instruction_output": [{"instruction": "Why?", "output": "So."}, {"instruction": "Who?", "output": "He."}],
        "caption": "A dog.",
    }
]

FOLDERS: dict[str, Files] = {
    "esc50": {
        "meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n2-5-B-20.wav,2,20,crying_baby,False,5,B\n",
        "audio/1-100032-A-0.wav": "",
        "audio/2-5-B-20.wav": "",
    },
    "fsd50k": {
        "FSD50K.ground_truth/dev.csv": FSD_DEV,
        "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n37199,Bark,/m/b\n",
        "FSD50K.dev_audio/64760.wav": "",
        "FSD50K.dev_audio/16399.wav": "",
        "FSD50K.eval_audio/37199.wav": "",
    },
    "vggsound": {
        "vggsound.csv": '---g-f_I2yQ,1,"people, marching",train\n--0PQM4-hqg,30,waterfall burbling,test\n',
        "video/---g-f_I2yQ_000001.mp4": "",
        "video/--0PQM4-hqg_000030.mp4": "",
    },
    "audioset": {
        "class_labels_indices.csv": 'index,mid,display_name\n0,/m/speech,"Speech"\n1,/m/bark,"Bark, loud"\n',
        "balanced_train_segments.csv": AUDIOSET,
        "eval_segments.csv": AUDIOSET.replace("--PJHxphWEs", "-0mG4CUfXpM").replace("Y1bcdefghij", "00000000000"),
        "balanced_train_segments/Y--PJHxphWEs.flac": "",
        "balanced_train_segments/Y1bcdefghij.flac": "",
        "audio/-0mG4CUfXpM_30_40.wav": "",
    },
    "audioset-strong": {
        "mid_to_display_name.tsv": "/m/bark\tBark\n/m/speech\tSpeech\n",
        "audioset_train_strong.tsv": STRONG,
        "audio/b0RFKhbpFJA_30000.wav": "",
        "audio/Ys9d-2nhuJCQ.wav": "",
    },
    "audiocaps": {
        "train.csv": "audiocap_id,youtube_id,start_time,caption\n91139,r1nicOVtvkQ,130,A woman talks\n",
        "val.csv": "audiocap_id,youtube_id,start_time,caption\n1,vfY_TJq7n_U,130,Rain falls\n",
        "test.csv": "audiocap_id,youtube_id,start_time,caption\n2,yVjivgsU2aA,0,Cars pass\n3,yVjivgsU2aA,0,Engines\n",
        "train/r1nicOVtvkQ.wav": "",
        "audio/vfY_TJq7n_U_130.wav": "",
        "test/YyVjivgsU2aA.wav": "",
    },
    "clotho": {
        "clotho_captions_development.csv": CLOTHO + '"Distorted AM.wav",A,B,"C, d",D,E\n',
        "clotho_captions_validation.csv": CLOTHO + "v.wav,A,B,C,D,E\n",
        "clotho_captions_evaluation.csv": CLOTHO + "e.wav,A,B,C,D,E\n",
        "clotho_metadata_development.csv": "file_name,keywords,sound_id\nDistorted AM.wav,x;y,1234\n",
        "development/Distorted AM.wav": "",
        "validation/v.wav": "",
        "evaluation/e.wav": "",
    },
    "clotho-aqa": {
        f"clotho_aqa_{split}.csv": "file_name,QuestionText,answer,confidence\n"
        f"{split}.wav,Is it raining?,yes,yes\n{split}.wav,Is it raining?,no,no\n{split}.wav,Is it raining?,no,yes\n"
        f"{split}.wav,What falls?,Rain,yes\n"
        for split in ("train", "val", "test")
    }
    | {f"audio_files/{split}.wav": "" for split in ("train", "val", "test")},
    "vocalsound": {
        "datafiles/tr.json": json.dumps(VOCAL),
        "datafiles/val.json": json.dumps({"data": []}),
        "datafiles/te.json": json.dumps(VOCAL).replace("f0003_0_throatclearing", "m0001_0_sniff"),
        "audio_16k/f0003_0_throatclearing.wav": "",
        "audio_16k/m0001_0_sniff.wav": "",
    },
    "nsynth": {
        "nsynth-train/examples.json": json.dumps({"bass_acoustic_000-024-025": NOTE}),
        "nsynth-train/audio/bass_acoustic_000-024-025.wav": "",
        "nsynth-test/examples.json": json.dumps({"t": NOTE | {"instrument_family_str": "synth_lead"}}),
        "nsynth-test/audio/t.wav": "",
    },
    "gtzan": {"genres/blues/blues.00000.au": "", "genres/rock/rock.00001.wav": "", "genres/rock/notes.txt": ""},
    "medley-solos": {
        "Medley-solos-DB_metadata.csv": "subset,instrument,instrument_id,song_id,uuid4\n"
        "test,clarinet,0,0,0e4371ac\ntraining,distorted electric guitar,1,17,aa\n",
        "Medley-solos-DB/Medley-solos-DB_test-0_0e4371ac.wav": "",
        "Medley-solos-DB/Medley-solos-DB_training-1_aa.wav": "",
    },
    "musiccaps": {
        "musiccaps-public.csv": "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
        "is_balanced_subset,is_audioset_eval\n"
        '-0Gj8-vB1q4,30,40,"/m/a","[\'low quality\', ""singer\'s voice""]","A ballad.\nSlow.",4,False,True\n'
        '-0SdAVK79lg,30,40,"/m/b","[\'guitar\']",Guitar.,0,False,False\n',
        "audio/-0Gj8-vB1q4.wav": "",
        "audio/[-0SdAVK79lg]-[30-40].wav": "",
    },
    "tut17": {
        "TUT-acoustic-scenes-2017-development/meta.txt": "audio/b020_90_100.wav\tforest_path\tb020\n",
        "TUT-acoustic-scenes-2017-development/audio/b020_90_100.wav": "",
        "TUT-acoustic-scenes-2017-evaluation/meta.txt": "audio/1245.wav\tbeach\n",
        "TUT-acoustic-scenes-2017-evaluation/audio/1245.wav": "",
    },
    "dcase17": {
        "metadata/groundtruth_weak_label_training_set.csv": "-5QrBL6MzLg_60.000_70.000.wav\t60.0\t70.0\tTrain horn\n"
        "-5QrBL6MzLg_60.000_70.000.wav\t60.000\t70.000\tTrain\n",
        "metadata/groundtruth_weak_label_testing_set.csv": "zzzzzzzzzzz_0.000_10.000.wav\t0.000\t10.000\tBus\n",
        "training/Y-5QrBL6MzLg_60.000_70.000.wav": "",
        "testing/Yzzzzzzzzzzz_0.000_10.000.wav": "",
    },
    "beijing-opera": {"222146__ajaysm__bangu-16.wav": "", "deep/Xiaoluo-02.wav": "", "readme.wav": ""},
    "compa-r": {"train.json": json.dumps(COMPA), "audio/Y0123456789a.flac": ""},
}
FOLDERS["esc10"] = FOLDERS["esc50"]

Facts = tuple[str, str, str, str | None]
LABELS, CAPTION = "Classify the sound events in the audio clip.", "Write an audio caption describing the sound."

FIRST: dict[str, Facts] = {
    "audiocaps": (
        "Write an audio caption describing the sound, in AudioCaps style.",
        "Audio caption: A woman talks",
        "train",
        "youtube:r1nicOVtvkQ",
    ),
    "audioset": (LABELS, "Labels: Speech; Bark, loud", "train", "youtube:--PJHxphWEs"),
    "audioset-strong": (LABELS, "Labels: Speech; Bark", "train", "youtube:b0RFKhbpFJA"),
    "beijing-opera": ("Which percussion instrument is played?", "Instrument: clapper-drum", "", "fs:222146"),
    "clotho": ("Create a caption for audio, in Clotho style.", "Audio caption: A", "train", "fs:1234"),
    "clotho-aqa": ("Is it raining?", "no", "train", None),
    "compa-r": ("Why?", "So.", "train", "youtube:0123456789a"),
    "dcase17": (LABELS, "Labels: Train horn; Train", "train", "youtube:-5QrBL6MzLg"),
    "esc10": (CAPTION, "Audio caption: Sound of dog", "", "fs:100032"),
    "esc50": (CAPTION, "Audio caption: Sound of dog", "", "fs:100032"),
    "fsd50k": (LABELS, "Labels: Electric guitar; Guitar; Crash cymbal and bells", "train", "fs:64760"),
    "gtzan": ("What is the genre of this music?", "Genre: blues", "", None),
    "medley-solos": ("Which instrument plays in this recording?", "Instrument: clarinet", "test", "medley-solos:0"),
    "musiccaps": (
        "Write a caption describing the music.",
        "Audio caption: A ballad. Slow.",
        "test",
        "youtube:-0Gj8-vB1q4",
    ),
    "nsynth": ("Which instrument plays this note?", "Instrument: bass", "train", None),
    "tut17": ("Where was this recorded?", "Scene: forest path", "train", "tut17:b020"),
    "vggsound": (LABELS, "Labels: people, marching", "train", "youtube:---g-f_I2yQ"),
    "vocalsound": (CAPTION, "Audio caption: Sound of throat clearing", "train", None),
}
"""Question, answer, split and group of the first row."""

COUNTS: dict[str, tuple[int, int]] = {
    "audiocaps": (4, 3),
    "audioset": (6, 3),
    "audioset-strong": (6 + 4, 2),
    "beijing-opera": (4, 2),
    "clotho": (15, 3),
    "clotho-aqa": (6, 3),
    "compa-r": (2, 1),
    "dcase17": (4, 2),
    "esc10": (1, 1),
    "esc50": (2, 2),
    "fsd50k": (6, 3),
    "gtzan": (2, 2),
    "medley-solos": (2, 2),
    "musiccaps": (4, 2),
    "nsynth": (4, 2),
    "tut17": (4, 2),
    "vggsound": (4, 2),
    "vocalsound": (2, 2),
}
"""Rows and clips."""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        root = tmp_path / name
        for path, content in FOLDERS[name].items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content, encoding="utf-8", newline="\n")
        return root

    return make


def rows(path: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(path.read_text())
    return loaded


def test_every_data_set_has_a_folder_here() -> None:
    assert set(MODULES) == set(FOLDERS) == set(FIRST) == set(COUNTS)


@pytest.mark.parametrize("name", MODULES)
def test_a_data_set(folder: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    out = tmp_path / "manifest.json"
    prepared = prepare(name, folder(name), out)
    written = rows(out)
    assert (prepared.rows, prepared.clips) == COUNTS[name] == (len(written), len({r["audio_id"] for r in written}))
    question, answer, split, group = FIRST[name]
    first = written[0]
    assert (first["instruction"], first["output"]) == (question, answer)
    assert (first.get("split", ""), first.get("group"), first["dataset"]) == (split, group, name)
    assert all(row.audio is not None and row.audio.is_file() for row in read(out))
    assert all(not Path(row["audio_id"]).is_absolute() for row in written)
    assert all("{" not in row["instruction"] + row["output"] for row in written)


def test_events_in_time(folder: Callable[[str], Path], tmp_path: Path) -> None:
    prepare("audioset-strong", folder("audioset-strong"), tmp_path / "m.json")
    answers = {row["instruction"]: row["output"] for row in rows(tmp_path / "m.json")[:6]}
    assert answers == {
        LABELS: "Labels: Speech; Bark",
        CAPTION: "Audio caption: Sound of speech and bark",
        "In which order do the sounds begin?": "Order: Speech; Bark",
        "List the sound events with their times.": "Events: Speech 0.0s-1.2s, 2.0s-3.0s; Bark 4.5s-10.0s",
        "When does speech sound?": "Speech: 0.0s-1.2s, 2.0s-3.0s",
        "When does bark sound?": "Bark: 4.5s-10.0s",
    }


def test_facts_that_only_one_data_set_has(folder: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    prepare("esc50", folder("esc50"), out)
    assert [(row["fold"], row["output"]) for row in rows(out)][1] == (2, "Audio caption: Sound of crying baby")
    prepare("musiccaps", folder("musiccaps"), out)
    assert rows(out)[1]["output"] == "Aspects: low quality; singer's voice"
    prepare("nsynth", folder("nsynth"), out)
    assert [row["output"] for row in rows(out)][1:3] == ["Source: acoustic", "Instrument: synth lead"]
    prepare("compa-r", folder("compa-r"), out)
    assert rows(out)[1]["caption"] == "A dog."
    prepare("audiocaps", folder("audiocaps"), out, splits=["val", "test"])
    assert [row["split"] for row in rows(out)] == ["val", "test", "test"]


def test_missing_clips_are_counted_and_none_is_an_error(folder: Callable[[str], Path], tmp_path: Path) -> None:
    root = folder("fsd50k")
    prepared = prepare("fsd50k", root, tmp_path / "m.json")
    assert (prepared.missing, prepared.first_missing) == (1, "7")
    for clip in root.rglob("*.wav"):
        clip.unlink()
    with pytest.raises(ManifestError, match=r"does not hold 4 clips of its tables, such as 64760"):
        prepare("fsd50k", root, tmp_path / "n.json")
    assert not (tmp_path / "n.json").exists()


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("gtzan", "beijing-opera")])
def test_another_folder_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError) as error:
        prepare(name, tmp_path, tmp_path / "m.json")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("esc50", "meta/esc50.csv", "src_file", "source", r"esc50\.csv: no column 'src_file'; there are: filename"),
        ("esc50", "meta/esc50.csv", "wav,1,", "wav,one,", r"esc50\.csv: line 2: 'fold' is 'one', expected a number"),
        ("vggsound", "vggsound.csv", ",train", "", r"vggsound\.csv: line 1 ends before 'split'"),
        (
            "medley-solos",
            "Medley-solos-DB_metadata.csv",
            "\ntest",
            "\nbest",
            r"line 2: 'subset' is 'best', expected one",
        ),
        ("nsynth", "nsynth-train/examples.json", "{", "", r"examples\.json: not JSON"),
        ("compa-r", "train.json", '"Why?"', "3", r"train\.json: row 1: 'instruction_output' holds a pair"),
    ],
)
def test_tables_of_another_form(
    folder: Callable[[str], Path], tmp_path: Path, name: str, file: str, old: str, new: str, message: str
) -> None:
    path = folder(name) / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ManifestError, match=message):
        prepare(name, tmp_path / name, tmp_path / "m.json")


def test_phrases() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n\xe9,2\n")
    assert dict(next(rows_of(tmp_path / "t.csv"))) == {"a": "\ufffd", "b": "2"}


def test_the_commands(runner: CliRunner, folder: Callable[[str], Path], tmp_path: Path) -> None:
    root, out = folder("fsd50k"), tmp_path / "m.json"
    result = runner.invoke(cli, ["prepare", "fsd50k", str(root), "--out", str(out), "--split", "train"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "warning: 1 clips of the tables are not there, such as 7",
        f"wrote 2 rows about 1 clips to {out}",
    ]
    listing = runner.invoke(cli, ["prepare", "source"]).stdout.split()
    assert listing == sorted(MODULES)
    assert "FSD50K.dev_audio" in runner.invoke(cli, ["prepare", "source", "fsd50k"]).stdout
    assert "did you mean 'fsd50k'?" in runner.invoke(cli, ["prepare", "source", "fsd50"]).stderr
    assert "FSD50K.dev_audio" in runner.invoke(cli, ["prepare", "fsd50k", "--help"]).stdout


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(GamaError, match="did you mean 'esc50'"):
        data_set("esc5")


def test_a_field_without_an_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"' + "x,\n" * 100_000)
    with pytest.raises(ManifestError, match=r"t\.csv: line \d+ cannot be read: field larger than field limit"):
        list(rows_of(tmp_path / "t.csv", needed=["a"]))
    (tmp_path / "t.csv").write_text('"' + "x,\n" * 100_000)
    with pytest.raises(ManifestError, match=r"t\.csv: line \d+ cannot be read"):
        list(rows_of(tmp_path / "t.csv", needed=["a"]))
    (tmp_path / "t.csv").write_text(",".join(f"column{n}" for n in range(1000)) + "\n1\n")
    with pytest.raises(ManifestError, match="no column 'a'; there are: column0, ") as caught:
        list(rows_of(tmp_path / "t.csv", needed=["a"]))
    assert len(str(caught.value)) < 500
