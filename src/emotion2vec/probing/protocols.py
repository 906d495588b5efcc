"""Protocols by name: which recordings are trained on, validated on and tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion2vec.manifest import Record
from emotion2vec.probing.folds import (
    Folds,
    Parts,
    complete,
    folds_by_speaker,
    folds_from_file,
    held_out,
    shared_speakers,
    speakers_of,
)

SIDES = ("train", "valid", "test")


@dataclass(frozen=True)
class SplitOptions:
    """What can be chosen about a protocol."""

    validation: str | None = None
    """as in `emotion2vec.probing.folds.VALIDATIONS`; None for the protocol's own"""
    num_folds: int | None = None
    """of `speaker-folds` (5) and `random` (10)"""
    file: Path | None = None
    """of `official` or `speaker-folds`, see `emotion2vec.probing.folds.folds_from_file`"""
    entry: str | None = None
    """which folds in the file; its first if None"""
    seed: int = 0
    """of all that is drawn"""


def official(records: Sequence[Record], options: SplitOptions) -> Folds:
    """The owners' or EmoBox's split: a file's, the labels `split` or the labels `fold`."""
    if options.file is not None:
        validation = options.validation or "speakers"
        made = folds_from_file(
            options.file, records, name=options.entry, validation=validation, seed=options.seed
        )
        return made._replace(name="official")
    for label, read in (("split", _by_split), ("fold", _by_fold)):
        have = sum(label in record.labels for record in records)
        if have == len(records):
            parts = read(records)
            sentence = f"{len(parts)} official fold{'s' * (len(parts) > 1)} (label {label!r})"
            return _finish("official", parts, sentence, options)
        if have:
            raise ValueError(
                f"{len(records) - have} of {len(records)} recordings have no label {label!r}; "
                "add it, or leave them out."
            )
    raise ValueError(
        "the recordings have neither the label 'split' nor 'fold'; give --folds FILE, or choose "
        "another protocol."
    )


def _by_split(records: Sequence[Record]) -> list[Parts]:
    sides = {side: [r for r in records if r.labels["split"] == side] for side in SIDES}
    strange = {record.labels["split"] for record in records} - set(SIDES)
    if strange:
        raise ValueError(f"the label 'split' is {strange.pop()!r}; it must be {', '.join(SIDES)}.")
    return [{side: part for side, part in sides.items() if part or side != "valid"}]


def _by_fold(records: Sequence[Record]) -> list[Parts]:
    return _leave_one_out(records, [record.labels["fold"] for record in records])


def _leave_one_out(records: Sequence[Record], groups: Sequence[str]) -> list[Parts]:
    """Return parts in which each group is tested once."""
    names = sorted(set(groups), key=lambda name: (len(name), name))  # "2" before "10"
    return [held_out(records, [group == name for group in groups]) for name in names]


def _finish(
    name: str,
    parts: Sequence[Parts],
    sentence: str,
    options: SplitOptions,
    validation: str = "speakers",
) -> Folds:
    validation = options.validation or validation
    return complete(parts, sentence, name=name, validation=validation, seed=options.seed)


def session_out(records: Sequence[Record], options: SplitOptions) -> Folds:
    """Each session (label `session`) is tested once; the paper's protocol for IEMOCAP."""
    without = sum("session" not in record.labels for record in records)
    if without:
        raise ValueError(
            f"{without} of {len(records)} recordings have no label 'session'; add it, or choose "
            "another protocol."
        )
    parts = _leave_one_out(records, [record.labels["session"] for record in records])
    sentence = f"leave one session out ({len(parts)} folds)"
    return _finish("session-out", parts, sentence, options)


def speaker_out(records: Sequence[Record], options: SplitOptions) -> Folds:
    """Each speaker is tested once, alone; with validation "next-speaker" the paper's 8/1/1."""
    if len(speakers_of(records)) < 3:
        raise ValueError(
            "fewer than 3 speakers are given; have at least one each to train, validate and test."
        )
    parts = _leave_one_out(records, [str(record.speaker) for record in records])
    sentence = f"leave one speaker out ({len(parts)} folds)"
    return _finish("speaker-out", parts, sentence, options)


def speaker_folds(records: Sequence[Record], options: SplitOptions) -> Folds:
    """Speakers in a few groups, each tested once: drawn, or the groups in a file."""
    if options.file is not None:
        made = official(records, options)
        if any(map(shared_speakers, made.folds)):
            raise ValueError(
                f"the folds of {options.file} have speakers in training and test; give others, or "
                "the protocol official."
            )
        return made._replace(name="speaker-folds")
    return folds_by_speaker(
        records,
        options.num_folds or 5,
        validation=options.validation or "speakers",
        seed=options.seed,
    )


def random(records: Sequence[Record], options: SplitOptions) -> Folds:
    """Clips drawn into folds whoever speaks and whatever the label; speakers are on both sides.

    The paper's "random leave-one-out 10-fold" of most corpora, which others quote (section 4.3) as
    80, 10 and 10 % of the clips at random: so many validate as are tested.
    """
    num_folds = options.num_folds or 10
    if not 2 <= num_folds <= len(records):
        raise ValueError(f"{num_folds} folds of {len(records)} recordings cannot be made.")
    place = np.random.default_rng(options.seed).permutation(len(records)) % num_folds
    parts = [held_out(records, (place == number).tolist()) for number in range(num_folds)]
    sentence = f"{num_folds} random folds of clips with seed {options.seed}"
    return _finish("random", parts, sentence, options, validation="as-many")


Protocol = Callable[[Sequence[Record], SplitOptions], Folds]

PROTOCOLS: dict[str, Protocol] = {
    "official": official,
    "session-out": session_out,
    "speaker-out": speaker_out,
    "speaker-folds": speaker_folds,
    "random": random,
}
"""Protocols by name."""

_TAKES = {
    "num_folds": ("speaker-folds", "random"),
    "file": ("official", "speaker-folds"),
    "entry": ("official", "speaker-folds"),
}


def split(
    name: str,
    records: Sequence[Record],
    options: SplitOptions | None = None,
    *,
    paper_star: bool = False,
) -> Folds:
    """The folds of the protocol called `name`.

    Args:
        name: one of `PROTOCOLS`
        records: of a corpus, with the labels and speakers that the protocol needs
        options: what can be chosen
        paper_star: select on the test part, see `starred`

    Raises:
        ValueError: for an unknown protocol, an option that it does not take, records without what
            it needs, or keys that come twice
        FileNotFoundError: if there is no such file of folds

    >>> clips = [Record(f"{s}{i}", "a.wav", speaker=s) for s in "abcd" for i in range(3)]
    >>> folds = split("speaker-out", clips)
    >>> len(folds.folds), folds.name, folds.validation
    (4, 'speaker-out', 'a fifth of the training speakers with seed 0')
    """
    options = options or SplitOptions()
    if name not in PROTOCOLS:
        raise ValueError(f"the protocol is {name!r}; choose one of {', '.join(PROTOCOLS)}.")
    for option, takers in _TAKES.items():
        if getattr(options, option) is not None and name not in takers:
            raise ValueError(
                f"{option} is given with the protocol {name}; only {', '.join(takers)} "
                f"take{'s' * (len(takers) == 1)} it."
            )
    key, times = Counter(record.key for record in records).most_common(1)[0] if records else ("", 0)
    if times != 1:
        raise ValueError(f"the key {key!r} comes {times} times; give records with a key each.")
    folds = PROTOCOLS[name](records, options)
    return starred(folds) if paper_star else folds


def starred(folds: Folds) -> Folds:
    """The folds with the test part in the place of validation: the paper's starred rows.

    What is chosen is then chosen on what is tested, and the score is no estimate of anything new;
    validation parts go back to training.
    """
    return folds._replace(
        folds=tuple(fold._replace(train=fold.seen, valid=fold.test) for fold in folds.folds),
        protocol=f"{folds.protocol.split('; validation')[0]}; * chosen on the test part itself",
        validation="the test part itself (--paper-star)",
        starred=True,
    )
