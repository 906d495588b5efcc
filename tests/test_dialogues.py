"""Corpora of dialogues, on copies of their folders made here: IEMOCAP, MELD, M3ED."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion2vec.corpora.dialogues import IEMOCAP_ALL, read_iemocap, read_m3ed, read_meld
from emotion2vec.manifest import Record
from emotion2vec.probing.protocols import split
from emotion2vec.probing.tasks import TASKS, turns_before, usable


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(800) / 8), 16000)
    return path


def by_key(records: list[Record]) -> dict[str, Record]:
    assert len({record.key for record in records}) == len(records)
    return {record.key: record for record in records}


# As the owners write it: the turns by speaker, not by time; votes under each turn.
EVALUATION = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\t{0}_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()
A-F1:\tval 2; act 3; dom  1;\t()

[11.3700 - 13.2700]\t{0}_F001\tfru\t[2.5000, 3.0000, 3.0000]
C-E2:\tNeutral; Frustration;\t()

[14.8872 - 18.0175]\t{0}_FXX0\txxx\t[2.0000, 3.5000, 4.0000]
C-E2:\tAnger;\t(laughing [1.0 - 2.0])

[7.0000 - 11.5660]\t{0}_M000\texc\t[4.0000, 4.5000, 3.5000]
C-E2:\tExcited;\t()
"""


@pytest.fixture
def iemocap(tmp_path: Path) -> Path:
    for n in range(1, 6):
        for dialogue in (f"Ses0{n}F_impro01", f"Ses0{n}M_script01_1b"):
            labels = tmp_path / f"Session{n}/dialog/EmoEvaluation/{dialogue}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text(EVALUATION.format(dialogue))
            (labels.parent / "Categorical").mkdir(exist_ok=True)
            (labels.parent / f"._{dialogue}.txt").write_bytes(b"\xb0\x00Mac OS X")
            for turn in ("F000", "F001", "FXX0", "M000"):
                sound(tmp_path / f"Session{n}/sentences/wav/{dialogue}/{dialogue}_{turn}.wav")
    return tmp_path


def test_iemocap_has_four_classes_and_all_turns(iemocap: Path) -> None:
    records = by_key(read_iemocap(iemocap))
    assert len(records) == 5 * 2 * 4
    excited = records["iemocap-Ses03F_impro01_M000"]  # the man speaks, the woman is filmed
    assert excited.emotion == "happy" and excited.speaker == "iemocap-Ses03M"
    assert len(excited.load()) == 800 and excited.language == "en"
    assert excited.labels == {
        **{"emotion": "happy", "valence": "4.0000", "arousal": "4.5000", "dominance": "3.5000"},
        **{"session": "3", "dialogue": "Ses03F_impro01", "turn": "1", "gender": "male"},
    }
    frustrated = records["iemocap-Ses03F_impro01_F001"]
    assert frustrated.emotion is None and frustrated.labels["arousal"] == "3.0000"
    assert {record.speaker for record in records.values()} == {
        f"iemocap-Ses0{n}{who}" for n in range(1, 6) for who in "FM"
    }


def test_iemocap_turns_stand_by_their_start(iemocap: Path) -> None:
    records = read_iemocap(iemocap)
    turns = {int(r.labels["turn"]): r.key for r in records if "Ses05M" in r.labels["dialogue"]}
    names = [turns[number].removeprefix("iemocap-Ses05M_script01_1b_") for number in range(4)]
    assert names == ["F000", "M000", "F001", "FXX0"]
    # A turn without a class is not asked for, but heard before another one.
    asked = usable(TASKS["conversation"], records)
    assert {record.emotion for record in asked} == {"happy"}
    before = turns_before(records, 6)["iemocap-Ses05M_script01_1b_FXX0"]
    assert [record.emotion for record in before] == ["neutral", "happy", None]


def test_iemocap_maps_are_a_choice(iemocap: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = {record.emotion for record in read_iemocap(iemocap, IEMOCAP_ALL)}
    assert found == {"neutral", "frustrated", "excited", None}
    assert "IEMOCAP: 10 recordings have other labels: xxx 10" in caplog.text


def test_iemocap_sessions_are_tested_once(iemocap: Path) -> None:
    folds = split("session-out", usable(TASKS["emotion"], read_iemocap(iemocap)))
    assert [{r.labels["session"] for r in fold.test} for fold in folds.folds] == [
        {str(n)} for n in range(1, 6)
    ]


def test_iemocap_counts_what_is_missing(iemocap: Path) -> None:
    for path in sorted(iemocap.rglob("*.wav"))[:2]:
        path.unlink()
    with pytest.raises(ValueError, match=r"IEMOCAP: 2 of 40 recordings are missing .*Ses01F_impr"):
        read_iemocap(iemocap)
    for n in (2, 4):
        (iemocap / f"Session{n}").rename(iemocap / f"Teil{n}")
    with pytest.raises(ValueError, match=r"2 of 5 sessions \(Session2, Session4\) are missing"):
        read_iemocap(iemocap)


MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime\n"
)
MELD_TIMES = ',4,7,"00:20:57,256","00:21:00,049"\n'
MELD_ROWS = {
    "train": [
        (0, 3, "Joey", "joy", "positive"),  # numbers leave gaps, rows are not in order
        (0, 1, "Rachel", "surprise", "negative"),
        (125, 3, "Ross", "anger", "negative"),
        (125, 4, "Ross", "sadness", "negative"),
    ],
    "dev": [(110, 7, "Monica", "fear", "negative"), (110, 8, "All", "neutral", "neutral")],
    "test": [(0, 1, "Joey", "disgust", "negative")],
}
MELD_FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    for part, rows in MELD_ROWS.items():
        lines = [
            f'{number},"Oh, {chr(0x92)}no!",{who},{emotion},{sentiment},{dia},{utt}{MELD_TIMES}'
            for number, (dia, utt, who, emotion, sentiment) in enumerate(rows, start=1)
        ]
        table = tmp_path / ("train" if part == "train" else "") / f"{part}_sent_emo.csv"
        table.parent.mkdir(exist_ok=True)
        table.write_bytes((MELD_HEADER + "".join(lines)).encode("cp1252", "replace"))
        for dia, utt, *_ in rows:
            if part != "dev" or utt != 7:  # missing in the owners' archive
                clip = tmp_path / MELD_FOLDERS[part] / f"dia{dia}_utt{utt}.mp4"
                clip.parent.mkdir(parents=True, exist_ok=True)
                clip.touch()
    (tmp_path / MELD_FOLDERS["test"] / "final_videos_testdia0_utt1.mp4").touch()
    return tmp_path


def test_meld_has_the_owners_parts_and_turns(meld: Path) -> None:
    records = by_key(read_meld(meld))
    assert list(records) == [
        *("meld-dia0_utt1-train", "meld-dia0_utt3-train", "meld-dia125_utt4-train"),
        *("meld-dia110_utt8-dev", "meld-dia0_utt1-test"),
    ]
    joy = records["meld-dia0_utt3-train"]
    assert joy.speaker == "meld-Joey" and joy.path.endswith("train/train_splits/dia0_utt3.mp4")
    assert joy.labels == {
        **{"emotion": "happy", "sentiment": "positive", "split": "train"},
        **{"dialogue": "train-dia0", "turn": "1"},
    }
    neutral = records["meld-dia110_utt8-dev"].labels
    assert neutral["emotion"] == "neutral" and "sentiment" not in neutral
    test = records["meld-dia0_utt1-test"]
    assert test.labels["split"] == "test" and "repeated_splits_test" in test.path
    (fold,) = split("official", list(records.values())).folds
    assert [len(part) for part in fold] == [3, 1, 1]


def test_meld_takes_sounds_made_of_the_films(meld: Path) -> None:
    path = sound(meld / "train" / "train_splits" / "dia0_utt3.flac")
    records = by_key(read_meld(meld))
    assert records["meld-dia0_utt3-train"].path == str(path)
    assert len(records["meld-dia0_utt3-train"].load()) == 800


def test_meld_counts_what_is_missing(meld: Path) -> None:
    (meld / MELD_FOLDERS["test"] / "dia0_utt1.mp4").unlink()
    with pytest.raises(ValueError, match=r"MELD: 1 of 5 recordings is missing .*test dia0_utt1"):
        read_meld(meld)
    (meld / "dev_sent_emo.csv").write_text("Speaker,Emotion\n")
    with pytest.raises(ValueError, match="has no column 'Sentiment' but Speaker, Emotion"):
        read_meld(meld)
    (meld / "dev_sent_emo.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"dev_sent_emo.csv are not there"):
        read_meld(meld)


def scene(name: str, emotions: list[str]) -> dict[str, object]:
    who = {
        "A": {"Name": "房似锦", "Age": "mid", "Gender": "female", "OtherName": []},
        "B": {"Name": "朱闪闪", "Age": "young", "Gender": "male", "OtherName": []},
    }
    dialog = {
        f"{name}_{number}": {
            "StartTime": "00:00:00:01",
            "EndTime": "00:00:01:04",
            "Text": "你先把衣服换了",
            "Speaker": "AB"[number % 2],
            "EmoAnnotation": {
                "EmoAnnotator1": emotion,
                "final_mul_emo": f"{emotion},Surprise",
                "final_main_emo": emotion,
            },
        }
        for number, emotion in reversed(list(enumerate(emotions, start=1)))
    }
    return {"SpeakerInfo": who, "Dialog": dialog}


@pytest.fixture
def m3ed(tmp_path: Path) -> Path:
    (tmp_path / "splitInfo").mkdir()
    annotation = {}
    for part, series in (("train", "anjia"), ("val", "fendou"), ("test", "qihun")):
        (tmp_path / "splitInfo" / f"movie_list_{part}.txt").write_text(f"{series}\nother{part}")
        turns = ["Neutral"] * 8 + ["Sad", "Anger"]
        annotation[series] = {f"{series}_{n}": scene(f"{series}_{n}", turns) for n in (1, 2)}
        for dialogue in annotation[series].values():
            for name, turn in dialogue["Dialog"].items():  # type: ignore[attr-defined]
                clip = tmp_path / "modality_speech" / f"{turn['Speaker']}_{name}.wav"
                clip.parent.mkdir(exist_ok=True)
                clip.touch()
    (tmp_path / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    return tmp_path


def test_m3ed_parts_are_series_and_turns_are_numbered(m3ed: Path) -> None:
    records = by_key(read_m3ed(m3ed))
    assert len(records) == 60
    last = records["m3ed-fendou_2_10"]
    assert last.speaker == "m3ed-fendou-房似锦" and last.language == "zh"
    assert last.labels == {
        **{"emotion": "angry", "split": "valid", "dialogue": "fendou_2"},
        **{"turn": "9", "gender": "female"},
    }
    assert records["m3ed-qihun_1_9"].labels["turn"] == "8"
    assert {r.labels["split"] for r in records.values()} == {"train", "valid", "test"}


def test_m3ed_may_lack_as_many_clips_as_the_published_archive(
    m3ed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = sorted(m3ed.rglob("*.wav"))
    for path in clips[:12]:
        path.unlink()
    assert len(read_m3ed(m3ed)) == 48
    assert "12 clips are not there" in caplog.text
    clips[12].unlink()
    with pytest.raises(ValueError, match="M3ED: 13 of 60 recordings are missing"):
        read_m3ed(m3ed)


def test_m3ed_series_must_be_in_a_list(m3ed: Path) -> None:
    (m3ed / "splitInfo" / "movie_list_val.txt").write_text("other")
    with pytest.raises(ValueError, match=r"1 series, such as 'fendou', are in no list"):
        read_m3ed(m3ed)
    (m3ed / "splitInfo" / "movie_list_val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"movie_list_val.txt is not there"):
        read_m3ed(m3ed)
