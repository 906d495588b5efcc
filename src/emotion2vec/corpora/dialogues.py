"""Corpora of dialogues: IEMOCAP, MELD, M3ED. Every turn is read, with the emotion if it has one.

Keys are EmoBox's.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emotion2vec.corpora.catalog import Corpus, missing_files, sounds_under
from emotion2vec.corpora.tables import (
    emotion_label,
    films_first,
    log_unmapped,
    number_turns,
    read_table,
)
from emotion2vec.manifest import Record

_log = logging.getLogger(__name__)

IEMOCAP_ALL = {
    "ang": "angry",
    "dis": "disgusted",
    "exc": "excited",
    "fea": "fearful",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "oth": "other",
    "sad": "sad",
    "sur": "surprised",
}
"""All classes of IEMOCAP; `xxx` marks turns on which the listeners did not agree."""

IEMOCAP_FOUR = {"ang": "angry", "exc": "happy", "hap": "happy", "neu": "neutral", "sad": "sad"}
"""The paper's four classes, in which excitement is happiness: 5,531 turns."""

# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
_IEMOCAP_TURN = re.compile(
    r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<turn>\w+)\t(?P<code>\w+)\t"
    r"\[(?P<valence>[\d.]+), (?P<arousal>[\d.]+), (?P<dominance>[\d.]+)\]"
)
_IEMOCAP_LAYOUT = (
    "Session1 to Session5, each with dialog/EmoEvaluation/*.txt and sentences/wav/DIALOGUE/*.wav, "
    "as in IEMOCAP_full_release"
)


def read_iemocap(root: Path, label_map: Mapping[str, str] = IEMOCAP_FOUR) -> list[Record]:
    """All 10,039 turns of IEMOCAP; those whose class is not in the map have no `emotion`.

    Labels: `session`, `dialogue`, `turn` (by start time), `gender`, `valence`, `arousal` (the
    owners' activation), `dominance` (1 to 5).

    Args:
        root: the corpus's folder
        label_map: `IEMOCAP_FOUR`, `IEMOCAP_ALL` or one of your own

    Raises:
        ValueError: if a session's labels or recordings are missing; they are counted
    """
    sessions = {f"Session{n}": root / f"Session{n}/dialog/EmoEvaluation" for n in range(1, 6)}
    gone = [name for name, folder in sessions.items() if not folder.is_dir()]
    if gone:
        raise ValueError(
            f"IEMOCAP: the labels of {len(gone)} of 5 sessions ({', '.join(gone)}) are missing "
            f"under {root}; it must hold {_IEMOCAP_LAYOUT}."
        )
    said, codes = [], []
    for session, folder in sessions.items():
        for path in sorted(folder.glob("Ses*.txt")):
            for found in _IEMOCAP_TURN.finditer(path.read_text(encoding="utf-8")):
                name = found["turn"]
                who = name.rsplit("_", 1)[1][0]  # the dialogue's own letter is whose face is filmed
                sound = root / session / "sentences" / "wav" / path.stem / f"{name}.wav"
                labels = {
                    **emotion_label(found["code"], label_map),
                    **{key: found[key] for key in ("arousal", "valence", "dominance")},
                    "session": session.removeprefix("Session"),
                    "dialogue": path.stem,
                    "gender": {"F": "female", "M": "male"}[who],
                }
                key, speaker = f"iemocap-{name}", f"iemocap-{name[:5]}{who}"
                record = Record(key, str(sound), speaker=speaker, language="en", labels=labels)
                said.append((float(found["start"]), record))
                codes.append(found["code"])
    gone = [record.key for _, record in said if not Path(record.path).is_file()]
    if gone:
        raise missing_files("IEMOCAP", gone, len(said), root=root, layout=_IEMOCAP_LAYOUT)
    log_unmapped("IEMOCAP", codes, label_map)
    return number_turns(said)


_MELD_MAP = {
    "anger": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "joy": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprised",
}
_MELD_TABLES = {"train": "train", "valid": "dev", "test": "test"}
_MELD_LAYOUT = (
    "train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv, and the clips (diaN_uttM.mp4, or wav "
    "made from them) in train_splits, dev_splits_complete, output_repeated_splits_test; mp4 needs "
    "the extra media"
)
_MELD_BROKEN = {("train", "dia125_utt3"), ("valid", "dia110_utt7")}
"""Damaged, and missing, in the owners' archive."""


def read_meld(root: Path) -> list[Record]:
    """The 13,706 utterances of MELD that the published archive has whole.

    Labels: `emotion`, `sentiment` (neutral ones have none), `split`, `dialogue`, `turn`.

    Raises:
        FileNotFoundError: if a table is missing
        ValueError: if clips are missing; they are counted
    """
    clips = {
        (_meld_side(path.relative_to(root)), path.stem): path
        for path in films_first(sounds_under(root))
    }
    columns = ("Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
    said, gone = [], []
    for side, name in _MELD_TABLES.items():
        table = next(
            iter(sorted(root.rglob(f"{name}_sent_emo.csv"))), root / f"{name}_sent_emo.csv"
        )
        for row in read_table(table, columns):
            clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            if (side, clip) in _MELD_BROKEN:
                continue
            sound = clips.get((side, clip))
            if sound is None:
                gone.append(f"{name} {clip}")
            labels = emotion_label(row["Emotion"].lower(), _MELD_MAP)
            if row["Sentiment"].lower() in ("negative", "positive"):
                labels["sentiment"] = row["Sentiment"].lower()
            labels |= {"split": side, "dialogue": f"{name}-dia{row['Dialogue_ID']}"}
            key, speaker = f"meld-{clip}-{name}", f"meld-{row['Speaker']}"
            record = Record(key, str(sound), speaker=speaker, language="en", labels=labels)
            said.append((float(row["Utterance_ID"]), record))
    if gone:
        raise missing_files("MELD", gone, len(said), root=root, layout=_MELD_LAYOUT)
    return number_turns(said)


def _meld_side(path: Path) -> str | None:
    """Return the part that a clip belongs to, by the names of its folders, the nearest first."""
    for folder in reversed(path.parent.parts):
        for side, name in _MELD_TABLES.items():
            if name in folder.lower():
                return side
    return None


_M3ED_MAP = {
    "Anger": "angry",
    "Disgust": "disgusted",
    "Fear": "fearful",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprised",
}
_M3ED_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_M3ED_LAYOUT = (
    "annotation.json, splitInfo/movie_list_{train,val,test}.txt, and the clips "
    "SPEAKER_SERIES_DIALOGUE_UTTERANCE.wav, such as modality_speech/A_anjia_1_1.wav"
)
_M3ED_LOST = 12
"""So many of 24,449 clips EmoBox could not use; no more may be missing."""


def read_m3ed(root: Path) -> list[Record]:
    """The utterances of M3ED, in the order in which their dialogues number them.

    Labels: `emotion` (the main one), `split` (by series), `dialogue`, `turn`, `gender`.

    Raises:
        FileNotFoundError: if the annotation or a list of series is missing
        ValueError: if more clips are missing than in the published archive (they are counted), or
            a series is in no list
    """
    side_of = {
        series: side
        for side, name in _M3ED_SPLITS.items()
        for series in _text(root / "splitInfo" / f"movie_list_{name}.txt").split()
    }
    dialogues: dict[str, dict[str, Any]] = json.loads(_text(root / "annotation.json"))
    stray = sorted(dialogues.keys() - side_of.keys())
    if stray:
        raise ValueError(
            f"M3ED: {len(stray)} series, such as {stray[0]!r}, are in no list of {root}/splitInfo; "
            "give the owners' lists."
        )
    clips = {path.stem: path for path in sounds_under(root)}
    said, gone = [], []
    for series, scenes in dialogues.items():
        for dialogue, scene in scenes.items():
            for name, turn in scene["Dialog"].items():
                clip = f"{turn['Speaker']}_{name}"
                if clip not in clips:
                    gone.append(f"{clip}.wav")
                    continue
                who = scene["SpeakerInfo"][turn["Speaker"]]
                labels = emotion_label(turn["EmoAnnotation"]["final_main_emo"], _M3ED_MAP)
                labels |= {"split": side_of[series], "dialogue": dialogue}
                labels["gender"] = who["Gender"].lower()
                key, speaker = f"m3ed-{name}", f"m3ed-{series}-{who['Name']}"
                record = Record(
                    key, str(clips[clip]), speaker=speaker, language="zh", labels=labels
                )
                said.append((float(name.rsplit("_", 1)[1]), record))
    if len(gone) > _M3ED_LOST or (gone and not said):
        raise missing_files("M3ED", gone, len(said) + len(gone), root=root, layout=_M3ED_LAYOUT)
    if gone:
        _log.warning("M3ED: %d clips are not there and left out, such as %s", len(gone), gone[0])
    return number_turns(said)


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; it must hold {_M3ED_LAYOUT}.")
    return path.read_text(encoding="utf-8-sig")


_SEVEN = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")

IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    language="en",
    classes=("angry", "happy", "neutral", "sad"),
    label_map=IEMOCAP_FOUR,
    speakers=10,
    licence="research only; a signed release form",
    source=(
        "Busso et al. 2008, Language Resources and Evaluation 42, 335-359; SAIL, University of "
        "Southern California, sail.usc.edu/iemocap"
    ),
    traps=(
        "Each session has a man and a woman of its own: random folds have every speaker, and every "
        "scripted play, on both sides.",
        "Half of the turns are scripted: the same three plays are acted in every session, so that "
        "test sentences were heard in training.",
        "The letter in a dialogue's name says whose face was filmed, not who speaks; the letter of "
        "the turn does.",
        "Excitement counts as happiness in the four classes (5,531 turns); papers without it have "
        "another test set.",
        "The published emotion2vec was pre-trained on these recordings, though without labels.",
    ),
    protocols=("session-out", "speaker-out", "random"),
    read=read_iemocap,
    layout=_IEMOCAP_LAYOUT,
)

MELD = Corpus(
    name="meld",
    title="MELD",
    language="en",
    classes=_SEVEN,
    label_map=_MELD_MAP,
    speakers=304,
    licence="GPL-3.0 for the annotation; the clips are of a television series",
    source="Poria et al. 2019, ACL (arXiv 1810.02508); github.com/declare-lab/MELD",
    traps=(
        "Clip dia125_utt3 of train is damaged and dia110_utt7 of dev is missing in the owners' "
        "archive; both are left out.",
        "The six main actors speak in train, dev and test: the official split tests no new "
        "speakers.",
        "Speakers called All, Guy or Woman are no one person.",
        "The series has a laugh track and music, which the clips keep.",
        "Many clips have more than two channels: EmoBox takes the third, here all are averaged.",
        "Some clips are cut wrongly: test dia38_utt4 and dia220_utt0 last minutes.",
        "Nearly half is neutral (1,256 of 2,610 in test): look at UA beside WA.",
        "The published emotion2vec was pre-trained on these recordings, though without labels.",
    ),
    protocols=("official",),
    read=read_meld,
    layout=_MELD_LAYOUT,
)

M3ED = Corpus(
    name="m3ed",
    title="M3ED",
    language="zh",
    classes=_SEVEN,
    label_map=_M3ED_MAP,
    speakers=626,
    licence="none is stated with the annotation; the clips are of television series",
    source="Zhao et al. 2022, ACL (arXiv 2205.10237); github.com/AIM3-RUC/RUCM3ED",
    traps=(
        "An utterance may have several emotions; the main one is read.",
        "Speakers are roles of a series; whether an actor plays in several is not written down.",
        "The owners count 24,449 utterances, EmoBox could use 24,437: up to 12 clips may be "
        "missing and are then left out, with a warning.",
    ),
    protocols=("official",),
    read=read_m3ed,
    layout=_M3ED_LAYOUT,
)

DIALOGUES = (IEMOCAP, MELD, M3ED)
"""The corpora of this file."""
