"""Corpora of single utterances with labels in tables or folders: MEAD, MSP-Podcast, RESD.

Keys are EmoBox's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emotion2vec.atomic import atomic_path
from emotion2vec.corpora.catalog import Corpus, missing_files, sounds_under
from emotion2vec.corpora.tables import emotion_label, films_first, log_unmapped, read_table
from emotion2vec.manifest import Record

_MEAD_MAP = {
    "angry": "angry",
    "contempt": "contempt",
    "disgusted": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprised": "surprised",
}
_MEAD_CLIP = re.compile(
    r"(?:^|/)(?P<actor>[MW]\d{3})/audio/(?P<code>\w+)/level_(?P<level>\d)/(?P<clip>\w+)\.\w+$"
)
_MEAD_ACTORS = 48
_MEAD_LAYOUT = (
    "a folder for each actor (M003, W009, ...) with audio/EMOTION/level_N/001.m4a; m4a needs the "
    "extra media"
)


def read_mead(root: Path) -> list[Record]:
    """The sounds of MEAD; its films are passed over.

    Labels: `emotion`, `intensity` (1 to 3; neutral has 1 only), `gender`.

    Raises:
        FileNotFoundError: if there is no such folder
        ValueError: if actors are missing, or have films only; they are counted
    """
    found: dict[str, Record] = {}
    codes = []
    for path in films_first(
        sounds_under(root)
    ):  # m4a is among films; a wav made from it replaces it
        parts = _MEAD_CLIP.search(path.relative_to(root).as_posix())
        if parts is None:
            continue
        key = "mead-{actor}-{code}-level-{level}-{clip}".format_map(parts.groupdict())
        codes.append(parts["code"])
        labels = emotion_label(parts["code"], _MEAD_MAP)
        if labels:
            labels["intensity"] = parts["level"]
            labels["gender"] = {"M": "male", "W": "female"}[parts["actor"][0]]
            speaker = f"mead-{parts['actor']}"
            found[key] = Record(key, str(path), speaker=speaker, language="en", labels=labels)
    gone = _MEAD_ACTORS - len({record.speaker for record in found.values()})
    if gone > 0:
        raise ValueError(
            f"MEAD: {gone} of {_MEAD_ACTORS} actors have no sound under {root}; it must hold "
            f"{_MEAD_LAYOUT}."
        )
    log_unmapped("MEAD", codes, _MEAD_MAP)
    return [found[key] for key in sorted(found)]


_MSP_MAP = {
    "A": "angry",
    "C": "contempt",
    "D": "disgusted",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "U": "surprised",
}
_MSP_DIMENSIONS = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
_MSP_SPLITS = {"Train": "train", "Development": "valid", "Validation": "valid"}
"""Older releases say Validation."""
_MSP_LAYOUT = "Labels/labels_consensus.csv (once spelt labels_concensus.csv) and Audios/*.wav"


def read_msp_podcast(root: Path, *, test: str = "Test1") -> list[Record]:
    """The speaking turns of MSP-Podcast in training, development and one of its test sets.

    Turns without a class that listeners agree on (X), or with another (O), have no `emotion` but
    the other labels: `arousal`, `valence`, `dominance` (1 to 7), `gender`, `split`.

    Args:
        root: the corpus's folder
        test: which of the owners' test sets is tested; the others are left out

    Raises:
        FileNotFoundError: if the labels are missing
        ValueError: if recordings are missing (they are counted), or there is no such test set
    """
    tables = sorted(root.glob("[Ll]abel*/labels_con[cs]ensus.csv"))
    columns = ("FileName", "EmoClass", *_MSP_DIMENSIONS.values(), "SpkrID", "Gender", "Split_Set")
    rows = read_table(next(iter(tables), root / "Labels" / "labels_consensus.csv"), columns)
    parts = {row["Split_Set"] for row in rows}
    if test not in parts:
        raise ValueError(f"MSP-Podcast has no part {test!r} but {', '.join(sorted(parts))}.")
    sides = {**_MSP_SPLITS, test: "test"}
    sounds = {path.name: path for path in sounds_under(root)}
    used = [row for row in rows if row["Split_Set"] in sides]
    gone = [row["FileName"] for row in used if row["FileName"] not in sounds]
    if gone:
        raise missing_files("MSP-Podcast", gone, len(used), root=root, layout=_MSP_LAYOUT)
    log_unmapped("MSP-Podcast", (row["EmoClass"] for row in used), _MSP_MAP)
    records = []
    for row in used:
        labels = emotion_label(row["EmoClass"], _MSP_MAP)
        labels |= {name: row[column] for name, column in _MSP_DIMENSIONS.items() if row[column]}
        labels["split"] = sides[row["Split_Set"]]
        if row["Gender"] in ("Female", "Male"):
            labels["gender"] = row["Gender"].lower()
        path = sounds[row["FileName"]]
        unknown = row["SpkrID"].lower() in ("", "unknown")
        speaker = None if unknown else f"msppodcast-{row['SpkrID']}"
        key = f"msppodcast-{path.stem}"
        records.append(Record(key, str(path), speaker=speaker, language="en", labels=labels))
    return records


_RESD_MAP = {
    "anger": "angry",
    "disgust": "disgusted",
    "enthusiasm": "enthusiastic",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
_RESD_LAYOUT = (
    "train.csv and test.csv with the clips in train/ and test/; or data/train-*.parquet and "
    "data/test-*.parquet, whose clips are written to train/ and test/ once (extra parquet)"
)


def read_resd(root: Path) -> list[Record]:
    """The clips of RESD.

    Labels: `emotion`, `split`, `dialogue`. A speaker is one voice of one dialogue, as file names
    tell them apart: 27_neutral_fear_n_100.wav is the neutral voice of dialogue 27.

    Raises:
        FileNotFoundError: if there are neither tables nor parquet files
        ValueError: if clips are missing (they are counted), or the extra parquet is
    """
    records, gone = [], []
    for side in ("train", "test"):
        for path, code in _resd_clips(root, side):
            if not path.is_file():
                gone.append(path.relative_to(root))
            voice = path.stem.rsplit("_", 1)[0].replace(" ", "_")
            labels = {**emotion_label(code, _RESD_MAP), "split": side, "dialogue": voice[:-2]}
            key, speaker = f"resd-{path.name}", f"resd-{voice}"
            records.append(Record(key, str(path), speaker=speaker, language="ru", labels=labels))
    if gone:
        raise missing_files("RESD", gone, len(records), root=root, layout=_RESD_LAYOUT)
    return records


def _resd_clips(root: Path, side: str) -> Iterator[tuple[Path, str]]:
    """Give the files and emotions of one part, from its table or its parquet files."""
    parquets = sorted(root.rglob(f"{side}-*.parquet"))
    if (root / f"{side}.csv").is_file() or not parquets:
        for row in read_table(root / f"{side}.csv", ("path", "emotion")):
            yield root / side / row["path"], row["emotion"]
        return
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ValueError(
            f"{parquets[0]} needs pip install 'emotion2vec[parquet]' to be read."
        ) from error
    for parquet in parquets:
        for batch in ParquetFile(parquet).iter_batches(64, columns=["path", "emotion", "speech"]):
            for row in batch.to_pylist():
                yield _unpacked(row, root / side), row["emotion"]


def _unpacked(row: dict[str, Any], folder: Path) -> Path:
    """Return the file of a clip that came inside a table; written if it is not there yet."""
    target = folder / Path(row["path"]).name
    if not target.is_file():
        with atomic_path(target) as path:
            path.write_bytes(row["speech"]["bytes"])
    return target


MEAD = Corpus(
    name="mead",
    title="MEAD",
    language="en",
    classes=tuple(sorted(_MEAD_MAP.values())),
    label_map=_MEAD_MAP,
    speakers=_MEAD_ACTORS,
    licence="the owners' terms of use, a PDF in their repository",
    source="Wang et al. 2020, ECCV; github.com/uniBruce/Mead",
    traps=(
        "60 actors were recorded, 48 are published.",
        "Neutral has one level of intensity, the others have three: it is the smallest class.",
        "The published emotion2vec was pre-trained on these recordings, though without labels.",
    ),
    protocols=("speaker-folds", "speaker-out", "random"),
    read=read_mead,
    layout=_MEAD_LAYOUT,
)

MSP_PODCAST = Corpus(
    name="msppodcast",
    title="MSP-Podcast",
    language="en",
    classes=tuple(sorted(_MSP_MAP.values())),
    label_map=_MSP_MAP,
    speakers=1273,
    licence="on request; an agreement with the University of Texas at Dallas",
    source=(
        "Lotfian and Busso 2019, IEEE Transactions on Affective Computing; MSP Lab, University of "
        "Texas at Dallas"
    ),
    traps=(
        "Releases differ in size and in their parts (1.8 has 72,969 turns, 1.12 has 207,136): "
        "always name the release. The number of speakers is EmoBox's count.",
        "Some speakers are unknown: they are None here and may be on both sides.",
        "Test1 is tested; Test2 and Test3 are other tests and left out.",
        "Turns without agreement (X) or of another class (O) count in regression only.",
        "The published emotion2vec was pre-trained on these recordings, though without labels.",
    ),
    protocols=("official",),
    read=read_msp_podcast,
    layout=_MSP_LAYOUT,
)

RESD = Corpus(
    name="resd",
    title="RESD",
    language="ru",
    classes=tuple(sorted(_RESD_MAP.values())),
    label_map=_RESD_MAP,
    speakers=0,
    licence="MIT",
    source="Aniemore (Amentes, Lubenets, Davidchuk 2022); dataset Aniemore/resd of Hugging Face",
    traps=(
        "The owners' split, and every random one, has both voices of most dialogues in training "
        "and test.",
        "Who speaks is not published: a speaker here is one voice of one dialogue, with one "
        "emotion, and may be the same actor as another.",
        "Some clips were recorded at 16 kHz, others at 44.1 kHz.",
        "Enthusiasm is a class of its own that other corpora lack.",
    ),
    protocols=("random", "official"),
    read=read_resd,
    layout=_RESD_LAYOUT,
)

LISTED = (MEAD, MSP_PODCAST, RESD)
"""The corpora of this file."""
