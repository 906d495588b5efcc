"""Answers for many recordings, kept as they come, so that a killed run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion2vec.commands.output import Row

if TYPE_CHECKING:
    from emotion2vec.manifest import Record


STARTED_IN = "started_in"
"""Beside each unfinished row: the folder in which relative paths start."""


def part_path(out: Path, digest: str) -> Path:
    """Where unfinished answers for `out` stand: another place for other settings or weights.

    >>> part_path(Path("a/out.csv"), "1234").name
    '.out.csv.1234.part'
    """
    return out.with_name(f".{out.name}.{digest}.part")


def resumed_rows(
    records: Sequence[Record],
    part: Path,
    answer: Callable[[Sequence[Record]], Iterable[dict[str, Any]]],
) -> list[Row]:
    """A row for each recording, in their order; the rows that a killed run left in `part` are kept.

    Args:
        records: what is asked for, each with a key of its own
        part: file for rows as they come; whoever has written the whole answer removes it
        answer: rows for some recordings, in any order, with "key", "path", "start", "end" and
            "error"; where there is an error it is asked again in the next run
    """
    from emotion2vec.jsonl import read_jsonl, write_jsonl

    here = os.getcwd()
    found = {row["key"]: row for row in read_jsonl(part) if not row["error"]}
    for row in found.values():  # relative paths meant another file where another run was started
        if row.pop(STARTED_IN, here) != here:
            row["path"] = None
    rows: dict[str, Row] = {
        record.key: found[record.key]
        for record in records
        if _is_same(record, found.get(record.key))
    }
    todo = [record for record in records if record.key not in rows]
    kept = (dict(row) | {STARTED_IN: here} for row in rows.values())
    write_jsonl(kept, part)  # a last line that a kill cut short is gone
    with part.open("a", encoding="ascii") as file:
        for row in answer(todo):
            rows[row["key"]] = row
            file.write(json.dumps(row | {STARTED_IN: here}) + "\n")
            file.flush()
    return [rows[record.key] for record in records]


def _is_same(record: Record, row: Row | None) -> bool:
    """Whether a row of an earlier run answers for this very part of this file."""
    if row is None or (row["path"], row["start"]) != (record.path, record.start):
        return False
    return record.end is None or row["end"] == record.end
