"""Rows of the lists that recordings come in: JSON lines, csv, Kaldi's wav.scp, standard input."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple

from emotion2vec.addresses import without_scheme

Row = tuple[int, Any]
"""Number of the line; its values by name, or the exception that says what is wrong with it."""


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a list, whatever its kind; its suffix tells.

    Raises:
        ValueError: if the list as a whole cannot be read

    >>> import tempfile
    >>> scp = Path(tempfile.mkdtemp()) / "wav.scp"
    >>> _ = scp.write_text("a1 clips/a1.wav")
    >>> list(rows_of(scp))
    [(1, {'key': 'a1', 'path': 'clips/a1.wav'})]
    """
    return READERS.get(path.suffix.lower(), json_rows)(path)


def json_rows(path: Path) -> Iterator[Row]:
    """One JSON object a line; blank lines are passed over."""
    for line in lines_of(path):
        try:
            yield line.number, json.loads(line.text)
        except ValueError as error:
            yield line.number, error


class Line(NamedTuple):
    """A line of a text file, and the bytes at which it stands there."""

    number: int
    text: str
    offset: int
    size: int


def lines_of(path: Path) -> Iterator[Line]:
    r"""The lines of a file that are not blank, one in memory at a time.

    Raises:
        ValueError: if it is not UTF-8

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.jsonl"
    >>> _ = path.write_text("[1]\n\n[22]")
    >>> [tuple(line) for line in lines_of(path)]
    [(1, '[1]', 0, 3), (3, '[22]', 5, 4)]
    """
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            offset, line = end - len(line), line.rstrip(b"\r\n")
            if line and not line.isspace():
                yield Line(number, _decoded(line, path), offset, len(line))


def csv_rows(path: Path) -> Iterator[Row]:
    """A header, then values between commas, or tabs in .tsv; empty cells count as missing."""
    comma = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(_text(path)), delimiter=comma, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
    except csv.Error as error:
        raise ValueError(f"{path} has a broken first line ({error}); mend it.") from error
    reader.fieldnames = names
    if not {"path", "audio"} & set(names):
        raise ValueError(
            f"{path} has no column 'path' or 'audio' but {', '.join(names) or 'nothing'}; "
            f"its first line must name the columns, with {'tabs' if comma != ',' else 'commas'} "
            "between them."
        )
    try:
        for cells in reader:
            extra = cells.pop(None, None)
            if extra:
                yield reader.line_num, ValueError(f"{len(extra)} cells more than the header")
                continue
            values = {name: cell for name, cell in cells.items() if cell}
            audio = values.get("path") or values.get("audio")
            if audio:
                values.setdefault("key", key_of(audio))
            yield reader.line_num, values
    except csv.Error as error:
        yield reader.line_num + 1, ValueError(str(error))


def scp_rows(path: Path) -> Iterator[Row]:
    """Kaldi's wav.scp, with `segments` and `utt2spk` where they lie beside it.

    Raises:
        ValueError: if `segments` or `utt2spk` is broken
    """
    segments, speakers = path.with_name("segments"), path.with_name("utt2spk")
    speaker_of = dict(fields for _, fields in _fields(speakers, 2)) if speakers.is_file() else None
    rows = _segmented(path, segments) if segments.is_file() else _recordings(path)
    for number, values in rows:
        if isinstance(values, dict) and speaker_of is not None:
            if values["key"] not in speaker_of:
                yield number, ValueError(f"utt2spk does not know {values['key']!r}")
                continue
            values["speaker"] = speaker_of[values["key"]]
        yield number, values


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".scp": scp_rows,
}
"""The kinds of lists, by suffix."""

SIBLINGS = {".scp": ("segments", "utt2spk")}
"""What is read beside a list, where it is there."""

WANTED = {
    ".csv": "needs a path, and a key of its own or a path of its own",
    ".tsv": "needs a path, and a key of its own or a path of its own",
    ".scp": "must be an utterance's own name, a space and a path",
}
"""What a line of each kind must be, where it is not JSON."""


def paths_in(file: IO[bytes]) -> list[str]:
    r"""Paths or addresses, one a line, as `find` prints them; blank lines are passed over.

    >>> import io
    >>> paths_in(io.BytesIO(b"a.wav\n\nb c.wav\r\n"))
    ['a.wav', 'b c.wav']
    """
    lines = (line.rstrip(b"\r") for line in file.read().split(b"\n"))
    return [os.fsdecode(line) for line in lines if line.strip()]


def key_of(path: str | PurePath) -> str:
    """What a path is called where nothing else names it: itself without suffix, never outside.

    >>> key_of("../corpus/s1/a.b.wav"), key_of("/data/a.wav"), key_of("s3://calls/a.wav")
    ('corpus/s1/a.b', 'data/a', 'calls/a')
    """
    path = PurePath(without_scheme(str(path).partition("::")[0]))
    parts = (*path.parent.parts, path.stem)
    return "/".join(part for part in parts if part not in ("", path.anchor, ".."))


def _recordings(path: Path) -> Iterator[Row]:
    """Rows of a wav.scp: a name, then a path that may hold spaces."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        name, *rest = line.split(maxsplit=1) or [""]
        audio = "".join(rest).strip()
        if not name:
            continue
        if audio.startswith("|") or audio.endswith("|"):
            reason = f"{name} is the command {audio!r}, and commands are never run from a list"
            yield number, ValueError(f"{reason}; run it and list the file that it makes")
        elif re.search(r"\.ark:\d+$", audio):
            yield number, ValueError(f"{name} lies in the archive {audio}; list audio files")
        elif not audio:
            yield number, ValueError(f"no path after {name!r}")
        else:
            yield number, {"key": name, "path": audio}


def _segmented(path: Path, segments: Path) -> Iterator[Row]:
    """Rows of `segments`: utterance, recording, start, end; an end of -1 is the recording's."""
    audio_of: dict[str, Any] = {}
    for number, values in _recordings(path):
        if isinstance(values, Exception):
            yield number, values
        else:
            audio_of[values["key"]] = values["path"]
    for number, (key, recording, start, end) in _fields(segments, 4):
        if recording not in audio_of:
            reason = f"segments, line {number}: {path.name} has no recording {recording!r}"
            yield number, ValueError(reason)
        else:
            last = None if end.startswith("-1") else end
            yield number, {"key": key, "path": audio_of[recording], "start": start, "end": last}


def _fields(path: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        fields = line.split()
        if fields and len(fields) != count:
            raise ValueError(
                f"{path} has {len(fields)} fields in line {number}, not {count}; mend that line."
            )
        if fields:
            yield number, fields


def _text(path: Path) -> str:
    return _decoded(path.read_bytes().removeprefix(codecs.BOM_UTF8), path)


def _decoded(text: bytes, path: Path) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it as UTF-8.") from error
