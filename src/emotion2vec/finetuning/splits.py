"""Which recordings train, validate and test in fine-tuning, and what to say of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from emotion2vec.batching import lengths_of
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.manifest import Record, come_twice
from emotion2vec.probing.folds import VALIDATIONS, held_out


def check_keys(records: Sequence[Record]) -> None:
    """Refuse keys and recordings that come twice: they would be learned from and tested on.

    Raises:
        ValueError: that names the first one

    >>> check_keys([Record("a", "a.wav"), Record("b", "a.wav", start=2.0)])
    """
    keys = [record.key for record in records]
    if len(set(keys)) < len(keys):
        twice = [key for key, count in Counter(keys).items() if count > 1]
        raise come_twice(len(twice), twice[0])
    places = Counter((record.path, record.start, record.end) for record in records)
    again = [place[0] for place, count in places.items() if count > 1]
    if again:
        raise ValueError(
            f"{len(again)} recordings come twice under other keys, such as {again[0]}; give each "
            "once."
        )


def measured(records: Sequence[Record]) -> tuple[dict[str, Record], dict[str, str]]:
    """The recordings with their durations, by key, and why others cannot be read, by key."""
    usable, left_out = {}, {}
    for record, seconds in zip(records, lengths_of(records), strict=True):
        if isinstance(seconds, str):
            left_out[record.key] = seconds
        else:
            usable[record.key] = replace(record, duration=seconds)
    return usable, left_out


def whole_corpus(path: Any, records: list[Record], left_out: dict[str, str]) -> list[Record]:
    """The recordings for a file of folds, which may name any of them.

    Raises:
        ValueError: if some were left out
    """
    if left_out:
        key, error = next(iter(left_out.items()))
        raise ValueError(
            f"{len(left_out)} recordings cannot be used, such as {key} ({error}); "
            f"{path} is of a whole corpus, mend them or leave out the folds."
        )
    return records


def cut_validation(
    records: list[Record], config: FinetuneConfig
) -> tuple[list[Record], list[Record], str]:
    """Training and validation parts, and how they were cut, in words.

    By speaker, of those recordings whose speaker is known; the others then train. A teacher's
    labels are no truth to choose by: recordings with scores validate only where there are no
    others.
    """
    told = [r for r in records if not r.scores] or records
    known = [r for r in told if r.speaker is not None]
    kind = "speakers" if known and config.validation == "speakers" else "clips"
    cut = held_out(known or told, VALIDATIONS[kind].choose(known or told, (), config.seed))
    valid = list(cut["test"])
    kept = {r.key for r in valid}
    how = f"{VALIDATIONS[kind].sentence}, seed {config.seed}"
    if kind == "speakers":  # who validates trains in no recording, a teacher's neither
        speakers = {r.speaker for r in valid}
        return [r for r in records if r.speaker not in speakers], valid, how
    return [r for r in records if r.key not in kept], valid, how


def shared_speakers(train: Sequence[Record], held_out: Sequence[Record]) -> str:
    """What is known of speakers on both sides, in words.

    >>> shared_speakers([Record("a", "a.wav", speaker="s")], [Record("b", "b.wav", speaker="t")])
    'none of its speakers trains'
    """
    if any(r.speaker is None for r in (*train, *held_out)):
        return "not all speakers are known, so some may train, too"
    count = len({r.speaker for r in train} & {r.speaker for r in held_out})
    return f"{count} of its speakers train, too" if count else "none of its speakers trains"


def about_the_test(parts: Sequence[Sequence[Record]], how: str) -> str:
    """What to say of scores on a test part: of training, validation and test parts."""
    shared = shared_speakers([*parts[0], *parts[1]], parts[2])
    return f"a test part of its own, on which nothing was chosen; {shared}. Before: {how}"
