"""Train, validation and test parts: from a file, or made so that no speaker is on two sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emotion2vec.manifest import Record


class Fold(NamedTuple):
    """One split of a corpus."""

    train: tuple[Record, ...]
    valid: tuple[Record, ...]
    test: tuple[Record, ...]

    @property
    def seen(self) -> tuple[Record, ...]:
        """All that may be learned from: the training part, and validation unless it is the test."""
        return self.train if self.valid == self.test else (*self.train, *self.valid)


class Folds(NamedTuple):
    """Splits of a corpus, and where they come from."""

    folds: tuple[Fold, ...]
    protocol: str
    """a sentence that a reader can repeat them by"""
    name: str = "own"
    """of the protocol, as in `emotion2vec.probing.protocols.PROTOCOLS`; "own" for a file's folds"""
    validation: str = "given with the folds"
    """where the validation parts come from"""
    starred: bool = False
    """whether validation is the test part, as in the paper's starred rows"""


Parts = Mapping[str, Sequence[Record]]
"""The recordings of "train", "test" and, where they are given, "valid"."""


def folds_from_file(
    path: str | Path,
    records: Sequence[Record],
    *,
    name: str | None = None,
    validation: str = "speakers",
    seed: int = 0,
) -> Folds:
    """The folds in a JSON file: `{name: {"folds": [{"train": [keys], "test": [keys]}, ...]}}`.

    Args:
        path: the file
        records: all recordings of the corpus
        name: which entry of the file; its first one if None
        validation: where it comes from if a fold has no `valid` part, see `VALIDATIONS`
        seed: of that cut

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is no JSON of that shape, has no such entry, or names keys that the
            records lack (they are counted)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the folds {path} are not a file; check the path.")
    name, parts = _read_parts(path, name)
    by_key = {record.key: record for record in records}
    wanted = [key for part in parts for keys in part.values() for key in keys]
    missing = {key for key in wanted if key not in by_key}
    if missing:
        raise ValueError(
            f"{path} names {len(missing)} recordings that are not given, such as "
            f"{sorted(missing)[0]!r}; give the whole corpus."
        )
    sides = [{side: [by_key[key] for key in keys] for side, keys in part.items()} for part in parts]
    sentence = f"{len(parts)} folds {name!r} of {path.name}"
    return complete(sides, sentence, validation=validation, seed=seed)


def _read_parts(path: Path, name: str | None) -> tuple[str, list[dict[str, list[str]]]]:
    """Return the name of the folds and, for each, the keys of its parts."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        name = name or next(iter(entries))
        if name not in entries:
            raise ValueError(f"{path} has no folds {name!r}; it has {', '.join(entries)}.")
        parts = entries[name]["folds"]
        for part in parts:
            sides = [set(part[side]) for side in part]
            if not {"train", "test"} <= set(part) <= {"train", "valid", "test"}:
                raise TypeError
            if sum(map(len, sides)) != len(set.union(*sides)):
                raise ValueError(f"{path}: a fold has a key in two parts; keep them apart.")
        if not parts:
            raise TypeError
    except (json.JSONDecodeError, AttributeError, LookupError, StopIteration, TypeError) as error:
        raise ValueError(
            f'{path} is no file of folds; it must be {{"name": {{"folds": [{{"train": [keys], '
            f'"test": [keys]}}]}}}}, each fold with an optional "valid".'
        ) from error
    return name, parts


def folds_by_speaker(
    records: Sequence[Record], num_folds: int, *, validation: str = "speakers", seed: int = 0
) -> Folds:
    """Folds in which every speaker is tested once and never trained on at the same time.

    Args:
        records: all recordings, each with a speaker
        num_folds: how many; at most as many as speakers
        validation: where it comes from, see `VALIDATIONS`
        seed: which speakers go together

    Raises:
        ValueError: if a recording has no speaker, or speakers do not suffice

    >>> clips = [Record(f"{s}{i}", "a.wav", speaker=s) for s in "abcd" for i in range(3)]
    >>> [len(fold.test) for fold in folds_by_speaker(clips, 2).folds]
    [6, 6]
    """
    speakers = speakers_of(records)
    if not 2 <= num_folds <= len(speakers) or len(speakers) < 3:
        raise ValueError(
            f"{num_folds} folds of {len(speakers)} speakers cannot be made; choose from 2 to the "
            "number of speakers, and have at least 3: one each to train, validate and test."
        )
    drawn = np.random.default_rng(seed).permutation(speakers)
    parts = [
        held_out(records, [record.speaker in tested for record in records])
        for tested in map(set, np.array_split(drawn, num_folds))
    ]
    sentence = f"{num_folds} folds by speaker with seed {seed}"
    return complete(parts, sentence, name="speaker-folds", validation=validation, seed=seed)


def speakers_of(records: Sequence[Record]) -> list[str]:
    """The speakers, sorted.

    Raises:
        ValueError: if a recording has none
    """
    without = sum(record.speaker is None for record in records)
    if without:
        raise ValueError(
            f"{without} recordings have no speaker; add them to the manifest or give --folds FILE."
        )
    return sorted({str(record.speaker) for record in records})


def held_out(records: Sequence[Record], tested: Sequence[bool]) -> Parts:
    """The recordings in two parts: those that are tested, and the others to train on."""
    pairs = list(zip(records, tested, strict=True))
    return {
        "train": [record for record, is_tested in pairs if not is_tested],
        "test": [record for record, is_tested in pairs if is_tested],
    }


def make_folds(
    records: Sequence[Record],
    path: str | Path | None = None,
    *,
    name: str | None = None,
    num_folds: int = 5,
) -> Folds:
    """The folds in a file, or made by speaker where there is none.

    Raises:
        FileNotFoundError: as `folds_from_file`
        ValueError: as `folds_from_file` or `folds_by_speaker`
    """
    if path is None:
        return folds_by_speaker(records, num_folds)
    return folds_from_file(path, records, name=name)


def _some(names: Sequence[str], seed: int) -> set[str]:
    """Return a fifth of the names, drawn."""
    names = sorted(set(names))
    count = max(1, round(len(names) / 5))
    return set(np.random.default_rng(seed).choice(names, count, replace=False).tolist())


def _speakers(train: Sequence[Record], test: Sequence[Record], seed: int) -> list[bool]:
    chosen = _some([str(record.speaker) for record in train], seed)
    return [record.speaker in chosen for record in train]


def _next_speaker(train: Sequence[Record], test: Sequence[Record], seed: int) -> list[bool]:
    last = max(str(record.speaker) for record in test)
    speakers = sorted({str(record.speaker) for record in train})
    chosen = next((speaker for speaker in speakers if speaker > last), speakers[0])
    return [record.speaker == chosen for record in train]


def _clips(train: Sequence[Record], test: Sequence[Record], seed: int) -> list[bool]:
    chosen = _some([record.key for record in train], seed)
    return [record.key in chosen for record in train]


def _as_many(train: Sequence[Record], test: Sequence[Record], seed: int) -> list[bool]:
    count = min(len(test), len(train) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(train))[:count].tolist())
    return [place in chosen for place in range(len(train))]


class Validation(NamedTuple):
    """A way to cut validation from the training part."""

    choose: Callable[[Sequence[Record], Sequence[Record], int], list[bool]]
    """training part, test part, seed -> whether each training recording validates"""
    sentence: str


VALIDATIONS = {
    "speakers": Validation(_speakers, "validation is a fifth of the training speakers"),
    # Each speaker validates once where each is tested once: the paper's 8/1/1 of IEMOCAP.
    "next-speaker": Validation(
        _next_speaker, "validation is the training speaker who follows the tested one by name"
    ),
    # As the official script of IEMOCAP does it; validation then hears the training speakers.
    "clips": Validation(_clips, "validation is a fifth of the training clips"),
    # Of ten random folds 80, 10 and 10 %, as the paper is quoted.
    "as-many": Validation(_as_many, "validation is as many training clips as are tested"),
}
"""Where validation can come from."""


def complete(
    parts: Sequence[Parts],
    sentence: str,
    *,
    name: str = "own",
    validation: str = "speakers",
    seed: int = 0,
) -> Folds:
    """The folds of these parts; a missing validation part is cut from the training part.

    Args:
        parts: of each fold, "train", "test" and perhaps "valid"
        sentence: where they come from
        name: of the protocol
        validation: where it comes from where it is not given; a fifth of the clips instead of the
            speakers where these are not known
        seed: of the cut

    Raises:
        ValueError: for an unknown validation, or if a part is empty
    """
    if validation not in VALIDATIONS:
        raise ValueError(f"validation is {validation!r}; choose one of {', '.join(VALIDATIONS)}.")
    uncut = [part for part in parts if "valid" not in part]
    if not uncut:
        return Folds(tuple(map(_as_fold, parts)), sentence, name)
    if any(record.speaker is None for part in uncut for record in part["train"]):
        validation = "clips"
    choose, where = VALIDATIONS[validation]
    folds = []
    for part in parts:
        if "valid" not in part:
            train, test = part["train"], part["test"]
            cut = held_out(train, choose(train, test, seed))
            part = {"train": cut["train"], "valid": cut["test"], "test": test}
        folds.append(_as_fold(part))
    where += "" if validation == "next-speaker" else f" with seed {seed}"
    return Folds(tuple(folds), f"{sentence}; {where}", name, where.removeprefix("validation is "))


def _as_fold(parts: Parts) -> Fold:
    return check_parts(Fold(*(tuple(parts[side]) for side in ("train", "valid", "test"))))


def check_parts(fold: Fold) -> Fold:
    """The fold, if each part has recordings.

    Raises:
        ValueError: if one has none
    """
    if not all(fold):
        raise ValueError(
            f"a fold has {len(fold.train)} recordings to train, {len(fold.valid)} to validate and "
            f"{len(fold.test)} to test; each part needs some, check folds and recordings."
        )
    return fold


def shared_speakers(fold: Fold) -> int:
    """Speakers who are both in the test part and in what the probe was trained or chosen on.

    Where validation is the test part (`Folds.starred`), those in both training and test.
    """
    seen = {record.speaker for record in fold.seen} - {None}
    return len(seen & {record.speaker for record in fold.test})
