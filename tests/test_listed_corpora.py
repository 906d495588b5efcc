"""Corpora with tables or folders of labels, on copies made here: MEAD, MSP-Podcast, RESD, CMU."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion2vec.corpora.known import CORPORA
from emotion2vec.corpora.listed import read_mead, read_msp_podcast, read_resd
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import shared_speakers
from emotion2vec.probing.protocols import split
from emotion2vec.probing.tasks import TASKS, usable


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def sound(path: Path, seconds: float = 0.05) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(round(16000 * seconds)) / 8), 16000)
    return path


def by_key(records: list[Record]) -> dict[str, Record]:
    assert len({record.key for record in records}) == len(records)
    return {record.key: record for record in records}


TAKES = ("contempt-level-3-001", "neutral-level-1-040")


def test_mead_says_actor_emotion_and_intensity(tmp_path: Path) -> None:
    actors = [f"{'MW'[n % 2]}{n:03}" for n in range(3, 51)]
    for actor in actors:
        touch(tmp_path / actor / "audio/neutral/level_1/040.m4a")
        touch(tmp_path / actor / "audio/contempt/level_3/001.m4a")
        touch(tmp_path / actor / "video/front/contempt/level_3/001.mp4")
    touch(tmp_path / "W010/audio/sleepy/level_2/001.m4a")
    wav = touch(tmp_path / "W009/audio/contempt/level_3/001.wav")
    records = by_key(read_mead(tmp_path))
    assert set(records) == {f"mead-{actor}-{take}" for actor in actors for take in TAKES}
    made = records["mead-W009-contempt-level-3-001"]
    assert made.speaker == "mead-W009" and made.path == str(wav)
    assert made.labels == {"emotion": "contempt", "intensity": "3", "gender": "female"}
    for path in (tmp_path / "M004" / "audio").rglob("*.m4a"):
        path.unlink()
    with pytest.raises(ValueError, match=r"MEAD: 1 of 48 actors have no sound under"):
        read_mead(tmp_path)


MSP = """\
FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Train
MSP-PODCAST_0001_0009.wav,X,3.777778,3.555556,3.777778,39,Female,Train
MSP-PODCAST_0002_0001.wav,C,4.125,4.75,4.0,Unknown,Unknown,Development
MSP-PODCAST_0003_0001.wav,U,5.0,3.75,3.166667,41,Female,Test1
MSP-PODCAST_0004_0001.wav,A,2.4,4.2,2.8,42,Male,Test2
"""


@pytest.fixture
def podcast(tmp_path: Path) -> Path:
    touch(tmp_path / "Labels" / "labels_consensus.csv").write_text(MSP)
    for line in MSP.splitlines()[1:]:
        touch(tmp_path / "Audios" / line.split(",")[0])
    return tmp_path


def test_podcast_has_parts_dimensions_and_unknown_speakers(
    podcast: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    records = read_msp_podcast(podcast)
    assert [r.emotion for r in records] == ["neutral", None, "contempt", "surprised"]
    assert [r.speaker for r in records] == [
        *("msppodcast-30", "msppodcast-39", None, "msppodcast-41")
    ]
    assert records[0].key == "msppodcast-MSP-PODCAST_0001_0008"
    assert records[1].labels == {
        **{"arousal": "3.777778", "valence": "3.555556", "dominance": "3.777778"},
        **{"split": "train", "gender": "female"},
    }
    assert "gender" not in records[2].labels
    assert "1 recordings have other labels: X 1" in caplog.text
    (fold,) = split("official", usable(TASKS["dimensions"], records)).folds
    assert [len(part) for part in fold] == [2, 1, 1]


def test_podcast_tests_what_is_asked_for(podcast: Path) -> None:
    old = podcast / "Labels" / "labels_concensus.csv"  # as older releases spell it
    (podcast / "Labels" / "labels_consensus.csv").rename(old)
    old.write_text(MSP.replace("Development", "Validation"))
    records = read_msp_podcast(podcast, test="Test2")
    assert [r.labels["split"] for r in records] == ["train", "train", "valid", "test"]
    assert records[-1].emotion == "angry"
    with pytest.raises(ValueError, match=r"no part 'Test9' but Test1, Test2, Train, Validation\."):
        read_msp_podcast(podcast, test="Test9")


def test_podcast_counts_what_is_missing(podcast: Path) -> None:
    for path in podcast.rglob("*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match=r"MSP-Podcast: 4 of 4 recordings .*_0001_0008.wav"):
        read_msp_podcast(podcast)
    (podcast / "Labels" / "labels_consensus.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels_consensus.csv are not there"):
        read_msp_podcast(podcast)


RESD = {
    "train": [
        ("neutral_fear_27/27_neutral_fear_f_100.wav", "fear"),
        ("11_disgust_anger/11_anger_disgust d_200.wav", "disgust"),
        ("enthusiasm_sadness_50/50_enthusiasm_sadness_e_060.wav", "enthusiasm"),
    ],
    "test": [
        ("neutral_fear_27/27_neutral_fear_f_020.wav", "fear"),
        ("neutral_fear_27/27_neutral_fear_n_100.wav", "neutral"),
    ],
}


def check_resd(records: dict[str, Record]) -> None:
    assert len(records) == 5
    odd = records["resd-11_anger_disgust d_200.wav"]
    assert odd.speaker == "resd-11_anger_disgust_d" and odd.language == "ru"
    assert odd.labels == {"emotion": "disgusted", "split": "train", "dialogue": "11_anger_disgust"}
    (fold,) = split("official", list(records.values())).folds
    assert shared_speakers(fold) == 1 and len(fold.test) == 2


def test_resd_is_read_from_its_tables(tmp_path: Path) -> None:
    for side, rows in RESD.items():
        lines = [f"{path.split('/')[1][:-4]},{path},{emotion}" for path, emotion in rows]
        (tmp_path / f"{side}.csv").write_text("\n".join(["name,path,emotion", *lines]))
        for path, _ in rows:
            touch(tmp_path / side / path)
    check_resd(by_key(read_resd(tmp_path)))
    (tmp_path / "test" / RESD["test"][0][0]).unlink()
    with pytest.raises(ValueError, match=r"RESD: 1 of 5 recordings is missing .*27_neutral_fear"):
        read_resd(tmp_path)


def test_resd_is_unpacked_from_parquet_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    wav = io.BytesIO()
    soundfile.write(wav, np.sin(np.arange(800) / 8), 16000, format="wav")
    for side, rows in RESD.items():
        table = {
            "name": [Path(path).stem for path, _ in rows],
            "path": [path for path, _ in rows],
            "emotion": [emotion for _, emotion in rows],
            "speech": [{"bytes": wav.getvalue(), "path": None} for _ in rows],
        }
        (tmp_path / "data").mkdir(exist_ok=True)
        file = tmp_path / "data" / f"{side}-00000-of-00001-a2b7.parquet"
        parquet.write_table(pyarrow.table(table), file)
    records = by_key(read_resd(tmp_path))
    check_resd(records)
    clip = Path(records["resd-27_neutral_fear_n_100.wav"].path)
    assert clip == tmp_path / "test" / "27_neutral_fear_n_100.wav"
    assert len(records["resd-27_neutral_fear_n_100.wav"].load()) == 800
    written = clip.stat().st_mtime_ns
    check_resd(by_key(read_resd(tmp_path)))
    assert clip.stat().st_mtime_ns == written
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"needs pip install 'emotion2vec\[parquet\]'"):
        read_resd(tmp_path)


def test_resd_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train.csv are not there"):
        read_resd(tmp_path)


FOLDS = """\
standard_train_fold=['-3nNcZdcdvU', '81406']
standard_valid_fold=['fendou']

standard_test_fold=['qihun_-x']
print("this is not run", undefined)
"""


def owners_folder(root: Path, labels: dict[str, list[tuple[float, float, float]]]) -> None:
    """The owners' whole sounds, labels in HDF5 and folds."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(root / "CMU_MOSEI_Labels.csd", "w") as file:
        sequence = file.create_group("All Labels")
        sequence.create_group("metadata")["root name"] = np.bytes_("All Labels")
        for video, segments in labels.items():
            rows = sequence.create_group(f"data/{video}")
            rows["intervals"] = [(start, end) for start, end, _ in segments]
            rows["features"] = np.float32([[score, 0, 2, 0, 0, 0, 1] for *_, score in segments])
            sound(root / "Raw/Audio/Full/WAV_16000" / f"{video}.wav", seconds=0.5)
    (root / "cmu_mosei_std_folds.py").write_text(FOLDS)


MOSEI = {
    "-3nNcZdcdvU": [(0.3, 0.4, 1.0), (-0.48, 0.1, -0.33333334), (0.1, 0.25, 0.0)],
    "81406": [(0.0, 0.2, -3.0)],
    "fendou": [(0.0, 0.2, 2.0)],
    "qihun_-x": [(0.1, 0.3, 1.6666667)],
    "outside": [(0.0, 0.2, 1.0)],
}


def test_mosei_is_read_as_its_owners_label_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    owners_folder(tmp_path, MOSEI)
    records = by_key(CORPORA["cmu-mosei"].read(tmp_path))
    assert len(records) == 6 and "1 sentences are in no part" in caplog.text
    first = records["cmu-mosei--3nNcZdcdvU_1"]
    assert (first.start, first.end, first.speaker) == (0.0, 0.1, None)
    assert first.labels == {
        **{"sentiment": "negative", "split": "train"},
        **{"dialogue": "-3nNcZdcdvU", "turn": "0"},
    }
    neutral = records["cmu-mosei--3nNcZdcdvU_2"]
    assert "sentiment" not in neutral.labels and neutral.labels["turn"] == "1"
    assert len(neutral.load()) == 2400
    (fold,) = split("official", usable(TASKS["sentiment"], list(records.values()))).folds
    assert [len(part) for part in fold] == [3, 1, 1]


def test_mosei_without_folds_or_sounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    owners_folder(tmp_path, MOSEI)
    (tmp_path / "cmu_mosei_std_folds.py").write_text("folds = []")
    with pytest.raises(ValueError, match="has no lists standard_train_fold, standard_valid_fold"):
        CORPORA["cmu-mosei"].read(tmp_path)
    (tmp_path / "cmu_mosei_std_folds.py").unlink()
    records = CORPORA["cmu-mosei"].read(tmp_path)
    assert len(records) == 7 and not any("split" in record.labels for record in records)
    assert "no official split" in caplog.text
    next(tmp_path.rglob("-3nNcZdcdvU.wav")).unlink()
    with pytest.raises(ValueError, match=r"CMU-MOSEI: 3 of 7 recordings .*-3nNcZdcdvU/0"):
        CORPORA["cmu-mosei"].read(tmp_path)


def test_hdf5_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no labels; it must hold label.csv"):
        CORPORA["cmu-mosi"].read(tmp_path)
    touch(tmp_path / "CMU_MOSI_Opinion_Labels.csd")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"needs pip install 'emotion2vec\[hdf5\]'"):
        CORPORA["cmu-mosi"].read(tmp_path)


def test_mosi_needs_no_library_with_the_owners_csv(tmp_path: Path) -> None:
    touch(tmp_path / "Labels" / "OpinionLevelSentiment.csv").write_text(
        "0.2,0.3,2iD-tVS8NPw,2,-1.2\n0.0,0.2,2iD-tVS8NPw,1,2.4\n0.1,0.4,WKA5OygbEKI,1,0.0\n"
    )
    for video in ("2iD-tVS8NPw", "WKA5OygbEKI"):
        sound(tmp_path / "Raw/Audio/WAV_16000/Full" / f"{video}.wav", seconds=0.5)
        touch(tmp_path / "Raw/Audio/WAV_16000/Segmented" / f"{video}_1.wav")
    records = by_key(CORPORA["cmu-mosi"].read(tmp_path))
    assert [r.labels.get("sentiment") for r in records.values()] == ["positive", "negative", None]
    second = records["cmu-mosi-2iD-tVS8NPw_2"]
    assert second.speaker == "cmu-mosi-2iD-tVS8NPw" and second.labels["turn"] == "1"
    assert len(second.load()) == 1600


def test_mosi_is_read_from_the_table_of_mmsa(tmp_path: Path) -> None:
    table = touch(tmp_path / "label.csv")
    table.write_text(
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        '2iD-tVS8NPw,11,"A LOT, OF SAD PARTS",-0.8,,,,Negative,train\n'
        "2iD-tVS8NPw,9,THERE IS,0.0,,,,Neutral,train\n"
        "WKA5OygbEKI,1,GOOD,2.4,,,,Positive,valid\n"
        "tmZoasNr4rU,1,BAD,-3.0,,,,Negative,test\n"
    )
    for clip in ("2iD-tVS8NPw/11.mp4", "2iD-tVS8NPw/9.mp4", "WKA5OygbEKI/1.mp4"):
        touch(tmp_path / "Raw" / clip)
    wav = sound(tmp_path / "wav" / "tmZoasNr4rU" / "1.wav")
    records = by_key(CORPORA["cmu-mosi"].read(tmp_path))
    assert records["cmu-mosi-tmZoasNr4rU_1"].path == str(wav)
    assert records["cmu-mosi-tmZoasNr4rU_1"].end is None
    assert records["cmu-mosi-2iD-tVS8NPw_11"].labels == {
        **{"sentiment": "negative", "split": "train", "dialogue": "2iD-tVS8NPw", "turn": "1"}
    }
    wav.unlink()
    with pytest.raises(ValueError, match=r"CMU-MOSI: 1 of 4 recordings is missing .*tmZoasNr4rU/1"):
        CORPORA["cmu-mosi"].read(tmp_path)
    table.write_text("video_id,clip_id,label,mode\n2iD-tVS8NPw,one,-0.8,train\n")
    with pytest.raises(ValueError, match=r"clip 'one' of 2iD-tVS8NPw has the label '-0.8'"):
        CORPORA["cmu-mosi"].read(tmp_path)
