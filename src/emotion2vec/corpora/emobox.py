"""EmoBox: lists and official folds of 32 corpora, read from a copy of github.com/emo-box/EmoBox.

Source: Ma et al., EmoBox, Interspeech 2024, arXiv 2406.07162.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from emotion2vec.corpora.catalog import missing_files
from emotion2vec.listings import lines_of
from emotion2vec.manifest import Record

logger = logging.getLogger(__name__)

SIDES = ("train", "valid", "test")


class Listed(NamedTuple):
    """What EmoBox's readme says of a corpus."""

    title: str
    language: str | None
    """ISO 639-1; None for several."""
    speakers: int | None
    recordings: int


EMOBOX: dict[str, Listed] = {
    "aesdd": Listed("AESDD", "el", 5, 604),
    "ased": Listed("ASED", "am", 65, 2474),
    "asvpesd": Listed("ASVP-ESD", None, 131, 13964),
    "cafe": Listed("CaFE", "fr", 12, 936),
    "casia": Listed("CASIA", "zh", 4, 1200),
    "cremad": Listed("CREMA-D", "en", 91, 7442),
    "emns": Listed("EMNS", "en", 1, 1181),
    "emodb": Listed("EmoDB", "de", 10, 535),
    "emovdb": Listed("EmoV-DB", "en", 4, 6887),
    "emovo": Listed("EMOVO", "it", 6, 588),
    "emozionalmente": Listed("Emozionalmente", "it", 431, 6902),
    "enterface": Listed("eNTERFACE", "en", 44, 1263),
    "esd": Listed("ESD", None, 20, 35000),
    "iemocap": Listed("IEMOCAP", "en", 10, 5531),
    "jlcorpus": Listed("JL-Corpus", "en", 4, 2400),
    "m3ed": Listed("M3ED", "zh", 626, 24437),
    "mead": Listed("MEAD", "en", 48, 31729),
    "meld": Listed("MELD", "en", 304, 13706),
    "mer2023": Listed("MER2023", "zh", None, 5030),
    "mesd": Listed("MESD", "es", 11, 862),
    "msppodcast": Listed("MSP-Podcast", "en", 1273, 73042),
    "oreau": Listed("Oreau", "fr", 32, 434),
    "pavoque": Listed("PAVOQUE", "de", 1, 7334),
    "polish": Listed("Polish", "pl", 5, 450),
    "ravdess": Listed("RAVDESS", "en", 24, 1440),
    "resd": Listed("RESD", "ru", 200, 1396),
    "savee": Listed("SAVEE", "en", 4, 480),
    "shemo": Listed("ShEMO", "fa", 87, 2838),
    "subesco": Listed("SUBESCO", "bn", 20, 7000),
    "tess": Listed("TESS", "en", 2, 2800),
    "turevdb": Listed("TurEV-DB", "tr", 6, 1735),
    "urdu": Listed("URDU", "ur", 29, 400),
}
"""EmoBox's corpora, by the names of its folders."""

_WORDS = {
    "boredom": "bored",
    "disgust": "disgusted",
    "fear": "fearful",
    "surprise": "surprised",
    "no-agreement": None,
    "unknown": None,
}
"""EmoBox's words -> ours, where they differ; None for what is no emotion."""


def emobox_names(root: Path) -> list[str]:
    """The corpora whose folds are in a copy of EmoBox.

    Raises:
        FileNotFoundError: if there are none
    """
    there = [name for name in EMOBOX if (_folder(root, name) / "fold_1").is_dir()]
    if not there:
        raise FileNotFoundError(
            f"{root} is no copy of EmoBox: it lacks data/ravdess/fold_1 and the like; "
            "clone github.com/emo-box/EmoBox and give its folder."
        )
    return there


def read_emobox(root: Path, name: str, *, audio: Path | None = None) -> list[Record]:
    """The recordings of one of EmoBox's corpora, with its official folds as labels.

    A corpus with one fold gets the label `split`, one with several the label `fold`: the number of
    the fold that tests the recording. The protocol `official` reads both. Keys are EmoBox's.

    Args:
        root: a copy of EmoBox
        name: as in `EMOBOX`
        audio: the folder that holds EmoBox's `downloads`; `root` if None

    Raises:
        FileNotFoundError: if the copy has no such corpus
        ValueError: if the name is unknown, a list is broken, or audio files are missing (counted)
    """
    audio = audio or root
    records: dict[str, Record] = {}
    folds = _read_folds(root, name, audio)
    for number, sides in enumerate(folds, start=1):
        for side, part in sides.items():
            label = {"split": side} if len(folds) == 1 else {"fold": str(number)}
            for record in part:
                if len(folds) == 1 or side == "test":
                    labels = {**record.labels, **label}
                    records[record.key] = replace(record, labels=labels)
    missing = {record.path for record in records.values() if not Path(record.path).is_file()}
    if missing:
        wanted = len({record.path for record in records.values()})
        layout = f"downloads/{name} as in EmoBox's lists"
        raise missing_files(f"EmoBox's {name}", missing, wanted, root=audio, layout=layout)
    return list(records.values())


def emobox_folds(root: Path, name: str) -> list[dict[str, list[str]]]:
    """Keys of the parts "train", "test" and, where EmoBox has one, "valid" of each official fold.

    Our readers give the same keys.

    Raises:
        FileNotFoundError, ValueError: as `read_emobox`, but no audio is looked for
    """
    return [
        {side: [record.key for record in part] for side, part in sides.items()}
        for sides in _read_folds(root, name, root)
    ]


def _folder(root: Path, name: str) -> Path:
    return (root / "data" if (root / "data").is_dir() else root) / name


def _read_folds(root: Path, name: str, audio: Path) -> list[dict[str, list[Record]]]:
    """Return the records of each part of each fold, without those that have no emotion of ours."""
    if name not in EMOBOX:
        raise ValueError(f"EmoBox has no corpus {name!r}; it has {', '.join(EMOBOX)}.")
    folder = _folder(root, name)
    if not (folder / "fold_1").is_dir():
        there = ", ".join(emobox_names(root))
        raise FileNotFoundError(f"{folder} has no folds; this copy of EmoBox has those of {there}.")
    words, speakers = _words_of(folder), _speakers_of(folder)
    unknown: set[str] = set()
    folds = []
    for number in range(1, len(list(folder.glob("fold_*"))) + 1):
        lists = {
            side: folder / f"fold_{number}/{name}_{side}_fold_{number}.jsonl" for side in SIDES
        }
        sides: dict[str, list[Record]] = {}
        for side, path in lists.items():
            if side == "valid" and not path.is_file():
                continue
            rows = _rows_of(path)
            unknown |= {r["emo"] for r in rows if r["emo"].casefold() not in words}
            sides[side] = [
                _record(row, name, audio, emotion, speakers.get(row["key"]))
                for row in rows
                if (emotion := words.get(row["emo"].casefold()))
            ]
        folds.append(sides)
    if unknown:
        names = ", ".join(sorted(unknown))
        logger.warning("EmoBox's %s: left out, as its label map lacks them: %s", name, names)
    return folds


def _record(
    row: Mapping[str, Any], name: str, audio: Path, emotion: str, speaker: str | None
) -> Record:
    return Record(
        row["key"],
        str(audio / row["wav"]),
        start=row.get("start_time") or 0.0,
        end=row.get("end_time"),
        speaker=None if speaker is None else f"{name}-{speaker}",
        language=EMOBOX[name].language,
        labels={"emotion": emotion},
    )


def _rows_of(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in lines_of(path):
        try:
            row = json.loads(line.text)
            _ = row["key"], row["wav"], row["emo"].casefold()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}, line {line.number} is no recording of EmoBox's: it must be a JSON object "
                "with key, wav and emo; fetch the file again."
            ) from error
        rows.append(row)
    return rows


def _words_of(folder: Path) -> dict[str, str | None]:
    """Return EmoBox's labels in small letters -> our words."""
    path = next((p for p in sorted(folder.glob("label_*.json"))), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no label_map.json; fetch EmoBox again.")
    words = {label: word.lower() for label, word in json.loads(path.read_text()).items()}
    # EmoDB's lists say "neutral", its map "Neutral".
    return {label.casefold(): _WORDS.get(word, word) for label, word in words.items()}


def _speakers_of(folder: Path) -> dict[str, str]:
    """Return the speaker of each key; EmoBox writes them into its .stm file only."""
    path = folder / "data.seg.wrd.stm"
    matches = re.finditer(
        r"(?m)^(\S+) \S+ (.+?) [\d.]+ [\d.]+ <", path.read_text() if path.is_file() else ""
    )
    return {match[1]: match[2] for match in matches}
