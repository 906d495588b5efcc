"""Protocols: who is trained on, who validates, who is tested, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Fold, Folds, shared_speakers
from emotion2vec.probing.protocols import PROTOCOLS, SplitOptions, split, starred


def make_corpus(num_speakers: int = 10, clips: int = 10) -> list[Record]:
    """Two speakers a session, as in IEMOCAP; folds of four speakers."""
    return [
        Record(
            f"s{speaker}-{clip}",
            "none.wav",
            speaker=f"s{speaker}",
            labels={
                "emotion": ("happy", "sad")[clip % 2],
                "session": str(speaker // 2 + 1),
                "fold": str(speaker // 4 + 1),
            },
        )
        for speaker in range(num_speakers)
        for clip in range(clips)
    ]


def speakers(part: tuple[Record, ...]) -> set[str | None]:
    return {record.speaker for record in part}


def check_whole(folds: Folds, records: list[Record]) -> None:
    """Every clip is tested once, and stands in one part of each fold."""
    tested = [record.key for fold in folds.folds for record in fold.test]
    assert sorted(tested) == sorted(record.key for record in records)
    for fold in folds.folds:
        assert sorted(r.key for part in fold for r in part) == sorted(r.key for r in records)


@pytest.mark.parametrize(
    "name, tested",
    [("official", 4), ("session-out", 2), ("speaker-out", 1), ("speaker-folds", 2)],
)
def test_no_speaker_stands_on_two_sides(name: str, tested: int) -> None:
    records = make_corpus()
    folds = split(name, records)
    check_whole(folds, records)
    assert folds.name == name and not folds.starred
    assert max(len(speakers(fold.test)) for fold in folds.folds) == tested
    for fold in folds.folds:
        train, valid, test = map(speakers, fold)
        assert not train & valid and not train & test and not valid & test
        assert shared_speakers(fold) == 0


def test_random_folds_share_speakers_and_it_is_counted() -> None:
    records = make_corpus()
    folds = split("random", records)
    check_whole(folds, records)
    assert len(folds.folds) == 10 and {len(fold.test) for fold in folds.folds} == {10}
    assert {len(fold.valid) for fold in folds.folds} == {10}  # 80, 10 and 10 %
    assert folds.validation == "as many training clips as are tested with seed 0"
    assert all(shared_speakers(f) == len(speakers(f.test)) > 1 for f in folds.folds)
    assert len(split("random", records, SplitOptions(num_folds=4)).folds) == 4


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_seed_says_it_all(name: str) -> None:
    records = make_corpus()
    first, other = SplitOptions(seed=3), SplitOptions(seed=4)
    assert split(name, records, first) == split(name, records, first)
    assert split(name, records, first).folds != split(name, records, other).folds
    assert "seed 3" in split(name, records, first).protocol


def test_the_papers_8_1_1_lets_each_speaker_validate_once() -> None:
    folds = split("speaker-out", make_corpus(), SplitOptions(validation="next-speaker"))
    sizes = [tuple(len(speakers(part)) for part in fold) for fold in folds.folds]
    assert sizes == [(8, 1, 1)] * 10
    assert sorted(s for f in folds.folds for s in speakers(f.valid)) == sorted(
        s for f in folds.folds for s in speakers(f.test)
    )
    assert "who follows the tested one" in folds.validation


def test_validation_of_clips_is_a_fifth_of_training_as_in_the_official_script() -> None:
    folds = split("session-out", make_corpus(), SplitOptions(validation="clips"))
    for fold in folds.folds:
        assert (len(fold.train), len(fold.valid), len(fold.test)) == (64, 16, 20)
        assert speakers(fold.valid) & speakers(fold.train)
        assert shared_speakers(fold) == 0


def test_without_speakers_validation_is_of_clips_and_says_so() -> None:
    records = [replace(record, speaker=None) for record in make_corpus()]
    folds = split("session-out", records)
    assert folds.validation == "a fifth of the training clips with seed 0"
    assert "fifth of the training clips" in folds.protocol


def test_official_splits_are_read_from_the_label() -> None:
    sides = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
    records = [
        replace(record, labels={**record.labels, "split": sides[i % 10]})
        for i, record in enumerate(make_corpus())
    ]
    (fold,) = split("official", records).folds
    assert [len(part) for part in fold] == [60, 20, 20]
    assert split("official", records).validation == "given with the folds"
    rest = [record for record in records if record.labels["split"] != "valid"]
    folds = split("official", rest)
    assert folds.validation.startswith("a fifth of the training speakers")
    assert len(folds.folds[0].test) == 20


def test_an_official_file_of_folds_goes_before_labels(tmp_path: Path) -> None:
    records = make_corpus(4)
    keys = [record.key for record in records]
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"emobox": {"folds": [{"train": keys[:30], "test": keys[30:]}]}}))
    folds = split("official", records, SplitOptions(file=path, entry="emobox"))
    assert folds.name == "official" and "'emobox' of folds.json" in folds.protocol
    assert [r.key for r in folds.folds[0].test] == keys[30:]
    assert split("speaker-folds", records, SplitOptions(file=path)).name == "speaker-folds"
    path.write_text(json.dumps({"random": {"folds": [{"train": keys[:25], "test": keys[25:]}]}}))
    with pytest.raises(ValueError, match="have speakers in training and test"):
        split("speaker-folds", records, SplitOptions(file=path))


def test_the_papers_star_selects_on_the_test_part_and_is_marked_everywhere() -> None:
    records = make_corpus()
    plain, marked = split("session-out", records), split("session-out", records, paper_star=True)
    assert marked.starred and marked.name == "session-out"
    assert "* chosen on the test part" in marked.protocol and "fifth" not in marked.protocol
    assert "--paper-star" in marked.validation
    for fold, honest in zip(marked.folds, plain.folds, strict=True):
        assert fold.valid == fold.test == honest.test
        assert sorted(r.key for r in fold.train) == sorted(r.key for r in honest.seen)
        assert fold.seen == fold.train and shared_speakers(fold) == 0
    assert starred(marked).folds == marked.folds


def test_what_is_seen_is_never_the_test_part() -> None:
    a, b, c = (Record(key, "none.wav") for key in "abc")
    assert Fold((a,), (b,), (c,)).seen == (a, b)
    assert Fold((a, b), (c,), (c,)).seen == (a, b)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("leave-one-out", {}, "the protocol is 'leave-one-out'; choose one of official"),
        ("random", {"num_folds": 1}, "1 folds of 100 recordings cannot be made"),
        ("session-out", {"num_folds": 3}, "num_folds is given with the protocol session-out"),
        ("random", {"file": Path("f.json")}, "only official, speaker-folds take it"),
        ("random", {"validation": "dev"}, "validation is 'dev'; choose one of speakers"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(name, make_corpus(), SplitOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name, labels, message",
    [
        ("official", {"emotion": "sad"}, "neither the label 'split' nor 'fold'"),
        ("official", {"split": "dev"}, "the label 'split' is 'dev'; it must be train, valid, test"),
        ("session-out", {}, "100 of 100 recordings have no label 'session'"),
    ],
)
def test_records_without_what_a_protocol_needs(
    name: str, labels: dict[str, str], message: str
) -> None:
    records = [replace(record, labels=labels) for record in make_corpus()]
    with pytest.raises(ValueError, match=message):
        split(name, records)


def test_some_records_without_the_label_are_counted() -> None:
    records = make_corpus()
    records[3] = replace(records[3], labels={"emotion": "sad"})
    with pytest.raises(ValueError, match="1 of 100 recordings have no label 'fold'"):
        split("official", records)
    with pytest.raises(ValueError, match="the key 's0-0' comes 2 times"):
        split("random", [records[0], *records])
    with pytest.raises(ValueError, match="fewer than 3 speakers"):
        split("speaker-out", make_corpus(2))
