"""EmoBox's lists and folds, on a small copy of its folders."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from emotion2vec.corpora.emobox import EMOBOX, emobox_folds, emobox_names, read_emobox
from emotion2vec.corpora.known import CORPORA
from emotion2vec.probing.folds import shared_speakers
from emotion2vec.probing.protocols import split

Rows = Sequence[tuple[str, str]]
"""Names and EmoBox's emotions."""


def write_corpus(
    root: Path,
    name: str,
    folds: Sequence[Mapping[str, Rows]],
    words: Mapping[str, str],
    *,
    map_name: str = "label_map.json",
    **more: Any,
) -> None:
    """A corpus as EmoBox lays it out; names start with their speaker, audio is empty."""
    folder = root / "data" / name
    spoken = {}
    for number, sides in enumerate(folds, start=1):
        (folder / f"fold_{number}").mkdir(parents=True)
        for side, rows in sides.items():
            lines = []
            for stem, emotion in rows:
                wav = f"downloads/{name}/{stem}.wav"
                (root / wav).parent.mkdir(parents=True, exist_ok=True)
                (root / wav).touch()
                row = {"key": f"{name}-{stem}", "dataset": name, "wav": wav, "emo": emotion, **more}
                lines.append(json.dumps(row))
                spoken[row["key"]] = f"{row['key']} 1 {stem[:2]} 0 1.5 <id={row['key']}> {emotion}"
            path = folder / f"fold_{number}" / f"{name}_{side}_fold_{number}.jsonl"
            path.write_text("".join(f"{line}\n" for line in lines))
    (folder / map_name).write_text(json.dumps(words))
    (folder / "data.seg.wrd.stm").write_text("".join(f"{line}\n" for line in spoken.values()))


WORDS = {"Angry": "Angry", "Fearful": "Fear", "Neutral": "Neutral"}
BY_SPEAKER: list[Rows] = [
    [(f"s{n}-{i}", emotion) for i, emotion in enumerate(WORDS)] for n in range(4)
]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    folds = [
        {"test": test, "train": [row for part in BY_SPEAKER for row in part if part is not test]}
        for test in BY_SPEAKER
    ]
    write_corpus(tmp_path, "ravdess", folds, WORDS)
    return tmp_path


def test_several_folds_become_the_label_fold(box: Path) -> None:
    records = read_emobox(box, "ravdess")
    assert len(records) == 12
    assert {r.emotion for r in records} == {"angry", "fearful", "neutral"}
    last = {r.key: r for r in records}["ravdess-s3-1"]
    assert last.labels == {"emotion": "fearful", "fold": "4"}
    assert (last.speaker, last.language, last.end) == ("ravdess-s3", "en", None)
    folds = split("official", records)
    assert [shared_speakers(fold) for fold in folds.folds] == [0] * 4
    tested = [{r.key for r in fold.test} for fold in folds.folds]
    assert tested == [set(sides["test"]) for sides in emobox_folds(box, "ravdess")]


def test_one_fold_becomes_the_label_split(tmp_path: Path) -> None:
    sides = dict(zip(("train", "valid", "test"), BY_SPEAKER, strict=False))
    write_corpus(tmp_path, "meld", [sides], WORDS)
    folds = split("official", read_emobox(tmp_path, "meld"))
    assert [[r.key for r in part] for part in folds.folds[0]] == [
        [f"meld-{stem}" for stem, _ in sides[side]] for side in ("train", "valid", "test")
    ]


def test_parts_of_a_file(tmp_path: Path) -> None:
    sides = {"train": BY_SPEAKER[0], "test": BY_SPEAKER[1]}
    write_corpus(tmp_path, "pavoque", [sides], WORDS, start_time=2.5, end_time=4.0)
    assert {(r.start, r.end) for r in read_emobox(tmp_path, "pavoque")} == {(2.5, 4.0)}


def test_emoboxs_oddities(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sides = {
        "train": [("s1-a", "neutral"), ("s1-b", "X")],
        "test": [("s2-a", "angry"), ("s2-b", "strange")],
    }
    words = {"Neutral": "Neutral", "angry": "Angry", "X": "No-agreement"}
    write_corpus(tmp_path, "emovo", [sides], words, map_name="label_dict.json")
    folder = tmp_path / "data" / "emovo"
    (folder / "fold_1" / "emovo_test_fold1.jsonl").write_text("of an older version\n")
    (folder / "data.seg.wrd.stm").unlink()
    with caplog.at_level(logging.WARNING):
        records = read_emobox(tmp_path, "emovo")
    assert [(r.key, r.emotion, r.speaker) for r in records] == [
        ("emovo-s1-a", "neutral", None),
        ("emovo-s2-a", "angry", None),
    ]
    assert "label map lacks them: strange" in caplog.text
    assert emobox_folds(tmp_path, "emovo") == [{"train": ["emovo-s1-a"], "test": ["emovo-s2-a"]}]


def test_audio_may_lie_elsewhere_and_what_is_missing_is_counted(box: Path, tmp_path: Path) -> None:
    (box / "downloads").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"EmoBox's ravdess: 12 of 12 recordings are missing"):
        read_emobox(box, "ravdess")
    (tmp_path / "disk").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "disk" / "downloads")
    assert len(read_emobox(box, "ravdess", audio=tmp_path / "disk")) == 12
    (tmp_path / "disk" / "downloads" / "ravdess" / "s1-1.wav").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 12 recordings is missing .*such as downloads/ravdess/s1-1.wav; it"
    ):
        read_emobox(box, "ravdess", audio=tmp_path / "disk")
    assert len(emobox_folds(box, "ravdess")) == 4  # needs no audio


def test_which_corpora_are_there(box: Path, tmp_path: Path) -> None:
    assert emobox_names(box) == emobox_names(box / "data") == ["ravdess"]
    with pytest.raises(FileNotFoundError, match=r"no copy of EmoBox.* clone"):
        emobox_names(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"urdu has no folds.* those of ravdess"):
        read_emobox(box, "urdu")
    with pytest.raises(ValueError, match=r"EmoBox has no corpus 'cmu-mosi'; it has aesdd"):
        read_emobox(box, "cmu-mosi")


def test_a_pointer_instead_of_a_list_is_told(box: Path) -> None:
    path = box / "data" / "ravdess" / "fold_2" / "ravdess_test_fold_2.jsonl"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"ravdess_test_fold_2.jsonl, line 1 is no recording"):
        read_emobox(box, "ravdess")
    path.write_text('{"key": "a", "wav": "a.wav"}\n')
    with pytest.raises(ValueError, match=r"line 1 is no recording of EmoBox's: it must be"):
        read_emobox(box, "ravdess")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="ravdess_test_fold_2"):
        read_emobox(box, "ravdess")


def test_emobox_has_32_corpora_and_ours_agree_on_languages() -> None:
    assert len(EMOBOX) == 32
    for name, corpus in CORPORA.items():
        if name in EMOBOX:
            assert corpus.language == EMOBOX[name].language
