"""What commands share in how they answer: exit codes, formats, rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

SOME_FAILED = 3
"""Exit code of a run that finished but had to leave some recordings out."""

Format = Literal["table", "json"]
RowFormat = Literal["table", "json", "csv"]
"""For people; one JSON object a line; comma-separated values with a header."""

Row = Mapping[str, Any]


def json_line(row: Row) -> str:
    """The row as one line of JSON, names of labels readable.

    >>> json_line({"label": "生气", "score": 0.5})
    '{"label": "生气", "score": 0.5}'
    """
    return json.dumps(row, ensure_ascii=False)


def csv_line(values: Sequence[Any]) -> str:
    """Values as one line of CSV, without its end.

    >>> csv_line(["a,b", None, 0.5])
    '"a,b",,0.5'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def flatten(row: Row, columns: Sequence[str]) -> list[Any]:
    """Values of `columns` in a row; "scores.sad" stands for `row["scores"]["sad"]`.

    >>> flatten({"key": "a", "scores": {"sad": 0.5}}, ["key", "scores.sad", "scores.happy"])
    ['a', 0.5, None]
    """
    values: list[Any] = []
    for column in columns:
        name, _, inner = column.partition(".")
        value = row.get(name)
        values.append(value.get(inner) if inner and isinstance(value, Mapping) else value)
    return values


def row_lines(
    format: RowFormat, columns: Sequence[str], table_line: Callable[[Row], str]
) -> tuple[list[str], Callable[[Row], str]]:
    """Lines before the first row, and the function that makes the line of each row.

    Args:
        format: what the rows are printed as
        columns: of the CSV, as in `flatten`
        table_line: the line of a row for people
    """
    if format == "csv":
        return [csv_line(columns)], lambda row: csv_line(flatten(row, columns))
    return [], json_line if format == "json" else table_line
