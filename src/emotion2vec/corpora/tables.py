"""Tables of labels as corpora's owners write them, and the order of turns in a dialogue."""

from __future__ import annotations

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from emotion2vec.manifest import Record
from emotion2vec.media import MEDIA_SUFFIXES

_log = logging.getLogger(__name__)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    r"""The rows of a csv with a header, those columns only, spaces around cells removed.

    What is not UTF-8 is replaced: labels are plain, and transcripts beside them are not read.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if a column or a cell is missing

    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = table.write_text("file,emotion,text\na.wav,sad,\"Oh, no.\"\n")
    >>> read_table(table, ["file", "emotion"])
    [{'file': 'a.wav', 'emotion': 'sad'}]
    """
    if not path.is_file():
        raise FileNotFoundError(f"the labels {path} are not there; check the corpus's folder.")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        lacking = [name for name in columns if name not in (reader.fieldnames or [])]
        if lacking:
            raise ValueError(
                f"{path} has no column {lacking[0]!r} but {', '.join(reader.fieldnames or [])}; "
                "give the owners' table as it was."
            )
        rows = []
        for row in reader:
            if any(row[name] is None for name in columns):
                raise ValueError(f"{path}, line {reader.line_num}, has too few cells; mend it.")
            rows.append({name: row[name].strip() for name in columns})
    return rows


def films_first(paths: Iterable[Path]) -> list[Path]:
    """The files, films before sounds: by name, a sound then replaces the film it was taken from.

    >>> {path.stem: path.name for path in films_first([Path("a.flac"), Path("a.mp4")])}
    {'a': 'a.flac'}
    """
    return sorted(paths, key=lambda path: path.suffix.lower() not in MEDIA_SUFFIXES)


def emotion_label(code: str, label_map: Mapping[str, str]) -> dict[str, str]:
    """The label `emotion` for an owners' code; none for one that is not in the map.

    >>> emotion_label("exc", {"exc": "happy"}), emotion_label("xxx", {"exc": "happy"})
    ({'emotion': 'happy'}, {})
    """
    return {"emotion": label_map[code]} if code in label_map else {}


def log_unmapped(title: str, codes: Iterable[str], label_map: Mapping[str, str]) -> None:
    """Log how many recordings have codes that are not in the map, and which."""
    others = Counter(code for code in codes if code not in label_map)
    if others:
        counts = ", ".join(f"{code or 'empty'} {count:,}" for code, count in sorted(others.items()))
        _log.info("%s: %s recordings have other labels: %s", title, f"{others.total():,}", counts)


def number_turns(said: Iterable[tuple[float, Record]]) -> list[Record]:
    """The records with the label `turn`, from 0 in each `dialogue`, by the numbers before them.

    >>> said = [(time, Record(f"at {time}", "", labels={"dialogue": "d"})) for time in (2.5, 1.0)]
    >>> [(record.key, record.labels["turn"]) for record in number_turns(said)]
    [('at 1.0', '0'), ('at 2.5', '1')]
    """
    dialogues: dict[str, list[tuple[float, Record]]] = defaultdict(list)
    for time, record in said:
        dialogues[record.labels["dialogue"]].append((time, record))
    return [
        replace(record, labels={**record.labels, "turn": str(turn)})
        for turns in dialogues.values()
        for turn, (_, record) in enumerate(sorted(turns, key=lambda timed: timed[0]))
    ]
