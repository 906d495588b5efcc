"""Files of one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from emotion2vec.atomic import atomic_path


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The objects in a file; none if there is no file.

    Stops at the first line that is no JSON: what a kill cut short is the last one.

    >>> read_jsonl("no/such/file.jsonl")
    []
    """
    path = Path(path)
    if not path.is_file():
        return []
    with path.open("rb") as lines:
        return parse_jsonl(lines)


def parse_jsonl(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    r"""The objects in lines of UTF-8; stops as `read_jsonl`.

    >>> parse_jsonl([b'{"key": "a"}\n', b'{"ke'])
    [{'key': 'a'}]
    """
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except json.JSONDecodeError:
            break
    return rows


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one line a row, the whole file or nothing.

    Names that are no UTF-8 survive, because everything beyond ASCII is escaped.

    Raises:
        OSError: if the file cannot be written; an older one then stays
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
