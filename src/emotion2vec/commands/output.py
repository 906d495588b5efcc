"""What commands share in how they answer: exit codes, formats, rows, columns, bars."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

SOME_FAILED = 3
"""Exit code of a run that finished but had to leave some recordings out."""

Format = Literal["table", "json"]
RowFormat = Literal["table", "json", "csv"]
"""For people; one JSON object a line; comma-separated values with a header."""

Row = Mapping[str, Any]


def shows_bar(*, quiet: bool, printing: bool = False) -> bool:
    """Whether a progress bar helps: somebody looks, and it does not run through the answers.

    Args:
        quiet: what the user asked for
        printing: answers are printed meanwhile
    """
    return not quiet and sys.stderr.isatty() and not (printing and sys.stdout.isatty())


def text_width(text: str) -> int:
    """Columns of a terminal that a text takes; Chinese characters take two.

    >>> text_width("angry"), text_width("生气")
    (5, 4)
    """
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def fit(text: str, width: int) -> str:
    """The text in exactly so many columns of a terminal; of a long one, its end.

    >>> fit("sad", 5), fit("生气", 5), fit("folder/clip", 7), fit("生气生气", 6)
    ('sad  ', '生气 ', '...clip', '...气 ')
    """
    if text_width(text) > width:
        while text and text_width(text) > width - 3:
            text = text[1:]
        text = f"...{text}"
    return text + " " * (width - text_width(text))


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of columns: the first to the left, the others to the right.

    >>> align([["", "UA"], ["mine", "7.5"]])
    ['       UA', 'mine  7.5']
    """
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [fit(first, widths[0])]
        cells += [" " * (w - text_width(c)) + c for c, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def names_in(text: str | None) -> list[str] | None:
    """The names between commas, or None.

    >>> names_in("happy, sad")
    ['happy', 'sad']
    """
    return None if text is None else [name.strip() for name in text.split(",")]


def command_line(command: str, names: Sequence[str], options: Mapping[str, Any]) -> str:
    """The words that repeat a command, quoted for a shell; options that are None are left out.

    >>> command_line("probe", ["my model"], {"data": ["a.jsonl", "b.jsonl"], "num_folds": 3})
    "emotion2vec probe 'my model' --data a.jsonl b.jsonl --num-folds 3"
    """
    words = ["emotion2vec", command, *names]
    for name, value in options.items():
        if value is not None:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def tell_left_out(errors: Mapping[str, str]) -> None:
    """Print to standard error, by key, the recordings that could not be used, and why."""
    for key, error in errors.items():
        print(f"left out: {key}: {error}", file=sys.stderr)


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
    format: Literal["json", "csv"], columns: Sequence[str]
) -> tuple[list[str], Callable[[Row], str]]:
    """Lines before the first row, and the function that makes the line of each row.

    Args:
        format: what the rows are written as
        columns: of the CSV, as in `flatten`
    """
    if format == "csv":
        return [csv_line(columns)], lambda row: csv_line(flatten(row, columns))
    return [], json_line
