"""Train, validation and test parts: from a file, or made so that no speaker is on two sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emotion2vec.manifest import Record


class Fold(NamedTuple):
    """One split of a corpus."""

    train: tuple[Record, ...]
    valid: tuple[Record, ...]
    test: tuple[Record, ...]


class Folds(NamedTuple):
    """Splits of a corpus, and where they come from."""

    folds: tuple[Fold, ...]
    protocol: str
    """a sentence that a reader can repeat them by"""


def folds_from_file(
    path: str | Path, records: Sequence[Record], *, name: str | None = None, seed: int = 0
) -> Folds:
    """The folds in a JSON file: `{name: {"folds": [{"train": [keys], "test": [keys]}, ...]}}`.

    Where a fold has no `valid` part, it is cut from the training part, by speaker where the
    records have any.

    Args:
        path: the file
        records: all recordings of the corpus
        name: which entry of the file; its first one if None
        seed: of the cut

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
    folds = [
        _with_valid({side: [by_key[key] for key in keys] for side, keys in part.items()}, seed)
        for part in parts
    ]
    cut = "" if all("valid" in part for part in parts) else f"; {_CUT} with seed {seed}"
    return Folds(tuple(folds), f"{len(folds)} folds {name!r} of {path.name}{cut}")


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


def folds_by_speaker(records: Sequence[Record], num_folds: int, *, seed: int = 0) -> Folds:
    """Folds in which every speaker is tested once and never trained on at the same time.

    Args:
        records: all recordings, each with a speaker
        num_folds: how many; at most as many as speakers
        seed: which speakers go together

    Raises:
        ValueError: if a recording has no speaker, or speakers do not suffice

    >>> clips = [Record(f"{s}{i}", "a.wav", speaker=s) for s in "abcd" for i in range(3)]
    >>> [len(fold.test) for fold in folds_by_speaker(clips, 2).folds]
    [6, 6]
    """
    without = sum(record.speaker is None for record in records)
    if without:
        raise ValueError(
            f"{without} recordings have no speaker; add them to the manifest or give --folds FILE."
        )
    speakers = sorted({str(record.speaker) for record in records})
    if not 2 <= num_folds <= len(speakers) or len(speakers) < 3:
        raise ValueError(
            f"{num_folds} folds of {len(speakers)} speakers cannot be made; choose from 2 to the "
            "number of speakers, and have at least 3: one each to train, validate and test."
        )
    drawn = np.random.default_rng(seed).permutation(speakers)
    folds = []
    for tested in np.array_split(drawn, num_folds):
        train = [record for record in records if record.speaker not in tested]
        test = [record for record in records if record.speaker in tested]
        folds.append(_with_valid({"train": train, "test": test}, seed))
    protocol = f"{num_folds} folds by speaker with seed {seed}; {_CUT} with seed {seed}"
    return Folds(tuple(folds), protocol)


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


_CUT = "validation is a fifth of the training speakers"


def _with_valid(parts: dict[str, list[Record]], seed: int) -> Fold:
    """Return the fold; a missing validation part is cut from the training part."""
    train, valid = parts["train"], parts.get("valid")
    if valid is None:
        unknown = any(record.speaker is None for record in train)
        # Without speakers every recording counts as one: the cut is then a random one.
        owner = {r.key: r.key if unknown else str(r.speaker) for r in train}
        owners = sorted(set(owner.values()))
        count = max(1, round(len(owners) / 5))
        chosen = set(np.random.default_rng(seed).choice(owners, count, replace=False))
        valid = [record for record in train if owner[record.key] in chosen]
        train = [record for record in train if owner[record.key] not in chosen]
    return check_parts(Fold(tuple(train), tuple(valid), tuple(parts["test"])))


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
    """Speakers who are both in the test part and in what the probe was trained or chosen on."""
    seen = {record.speaker for record in (*fold.train, *fold.valid)} - {None}
    return len(seen & {record.speaker for record in fold.test})
