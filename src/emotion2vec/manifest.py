"""Lists of recordings: from JSON lines, csv, Kaldi, standard input, files, folders and globs."""

from __future__ import annotations

import glob
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from emotion2vec.addresses import (
    fetched,
    find_files,
    is_address,
    is_local,
    open_folder,
    placed,
)
from emotion2vec.audio import AUDIO_SUFFIXES, Waveform, load_audio, num_samples
from emotion2vec.jsonl import write_jsonl
from emotion2vec.listings import (
    READERS,
    SIBLINGS,
    WANTED,
    Line,
    key_of,
    lines_of,
    paths_in,
    rows_of,
)

LABELS = (
    *("emotion", "sentiment", "arousal", "valence", "dominance", "traces", "gender", "intensity"),
    *("sentence", "session", "dialogue", "turn", "split", "fold"),
)
"""Labels that a list may have as fields or columns of their own; docs/corpora.md explains them."""


@dataclass(frozen=True)
class Record:
    """One recording, or a part of one."""

    key: str
    """Unique name, under which results are found again."""
    path: str
    start: float = 0.0
    """Where the part begins, in seconds."""
    end: float | None = None
    """Where it stops, in seconds; None for the end of the file."""
    duration: float | None = None
    """In seconds; None where nobody measured it."""
    speaker: str | None = None
    language: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Such as {"emotion": "happy"}."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """A teacher's probability of each emotion, a soft label; as `emotion2vec recognize` writes."""
    weight: float = 1.0
    """How much the recording counts in fine-tuning."""

    @property
    def emotion(self) -> str | None:
        """The label under "emotion"."""
        return self.labels.get("emotion")

    def num_samples(self) -> int:
        """Samples at 16 kHz, from the file's header; errors as `emotion2vec.audio.num_samples`."""
        return num_samples(self.path, start=self.start, end=self.end)

    def load(self) -> Waveform:
        """The recording's sound, (S,); errors as `emotion2vec.audio.load_audio`."""
        return load_audio(self.path, start=self.start, end=self.end)


def read_manifest(path: str | Path) -> list[Record]:
    """The records in a list, in its order; its suffix tells what kind it is.

    .jsonl (and any other): a line has `key` and `path` and may have `start`, `end`, `duration`
    (seconds), `speaker`, `language`, `labels`, `scores` and `weight`. `audio` for `path`,
    `duration_s` for `duration`, and `LABELS` outside `labels` are understood, too; other fields
    are passed over.

    .csv, .tsv: a header, with these fields as columns; without a key, the path is it.

    .scp: Kaldi's wav.scp, with `segments` and `utt2spk` beside it; commands are refused.

    Relative paths, those in `traces` too, start at the list's folder. The list may be at an fsspec
    address, and so may be what it names.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if a line is broken (all such lines are counted, the first is shown), if a key
            comes twice, or if there is no line at all

    >>> import tempfile
    >>> manifest = Path(tempfile.mkdtemp()) / "clips.jsonl"
    >>> _ = manifest.write_text('{"key": "a", "path": "a.wav", "emotion": "sad"}')
    >>> read_manifest(manifest)[0].emotion
    'sad'
    """
    if not (isinstance(path, str) and is_address(path)):
        return _read(Path(path), Path(path).parent)
    with fetched(path, SIBLINGS.get(PurePath(path).suffix.lower(), ())) as copy:
        try:
            return _read(copy, path.rpartition("/")[0])
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), path)) from error


def _read(path: Path, folder: str | Path) -> list[Record]:
    records: dict[str, Record] = {}
    broken = _Broken(path, folder)
    for number, values in rows_of(_checked(path)):
        record = broken.parse(number, values)
        if record and record.key in records:
            broken.note(number, ValueError(f"the key {record.key!r} came before"))
        elif record:
            records[record.key] = record
    broken.check()
    if not records:
        raise ValueError(f"{path} lists no recordings; write one a line.")
    return list(records.values())


def stream_manifest(path: str | Path) -> Iterator[tuple[Line, Record]]:
    """The lines of a list of JSON lines, and their records, one in memory at a time.

    As `read_manifest`, but keys may come twice, and broken lines are told when all are read.
    """
    path = Path(path)
    broken = _Broken(path, path.parent)
    for line in lines_of(_checked(path)):
        try:
            values = json.loads(line.text)
        except ValueError as error:
            values = error
        record = broken.parse(line.number, values)
        if record:
            yield line, record
    broken.check()


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"the manifest {path} is not a file; check the path.")
    return path


class _Broken:
    """The broken lines of a list: their number, and what is wrong with the first."""

    def __init__(self, path: Path, folder: str | Path) -> None:
        self.path, self.folder, self.count, self.first = path, folder, 0, ""

    def parse(self, number: int, values: Any) -> Record | None:
        """Return the record of a line; None where the line is broken."""
        try:
            if isinstance(values, Exception):
                raise values
            return parse_record(values, self.folder)
        except (ValueError, TypeError, KeyError) as error:
            self.note(number, error)
            return None

    def note(self, number: int, error: Exception) -> None:
        """Count a broken line."""
        reason = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        self.first = self.first or f"line {number}: {reason}"
        self.count += 1

    def check(self) -> None:
        """Raise if a line was broken."""
        wanted = 'must be a JSON object such as {"key": "a", "path": "a.wav"} with a key of its own'
        if self.count:
            raise ValueError(
                f"{self.path} has {self.count} broken line{'s' * (self.count > 1)} ({self.first}); "
                f"each {WANTED.get(self.path.suffix.lower(), wanted)}."
            )


def parse_record(values: Any, folder: str | Path) -> Record:
    """The record that a line of a list describes; its path, if relative, starts at `folder`.

    Args:
        values: the fields of the line
        folder: a path or an address; paths that are addresses themselves stay as they are

    Raises:
        KeyError: if something is missing
        ValueError, TypeError: if something is of another kind

    >>> parse_record({"key": "a", "path": "a.wav", "end": 2}, Path("clips")).path
    'clips/a.wav'
    """
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    audio = values["path"] if "path" in values else values.get("audio")
    if not isinstance(audio, str) or not isinstance(values["key"], str):
        raise ValueError("key and path must be strings")
    labels = dict(values.get("labels") or {})
    for name in LABELS:
        if isinstance(values.get(name), str | int | float):
            labels.setdefault(name, str(values[name]))
    if "traces" in labels:
        labels["traces"] = placed(labels["traces"], folder)
    speaker = values.get("speaker")
    return Record(
        key=values["key"],
        path=placed(audio, folder),
        start=_seconds(values.get("start")) or 0.0,
        end=_seconds(values.get("end")),
        duration=_seconds(values.get("duration", values.get("duration_s"))),
        speaker=None if speaker is None else str(speaker),
        language=values.get("language"),
        labels=labels,
        scores=_soft_label(values.get("scores")),
        weight=_number(values.get("weight", 1.0), "weight"),
    )


def _soft_label(scores: Any) -> dict[str, float]:
    if scores is None or scores == "":
        return {}
    if not isinstance(scores, dict):
        raise ValueError('scores must be an object such as {"happy": 0.7, "sad": 0.3}')
    return {str(name): _number(score, f"score of {name}") for name, score in scores.items()}


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{value} is no {name}, which is a number from 0")
    return float(value)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if not math.isfinite(float(value)) or float(value) < 0:
        raise ValueError(f"{value} is no time in seconds")
    return float(value)


def write_manifest(records: Iterable[Record], path: str | Path) -> None:
    """Write one JSON line a record; paths under the manifest's folder relative, others absolute.

    Raises:
        OSError: if the file cannot be written; an older one then stays
    """
    folder = Path(path).absolute().parent
    write_jsonl((row_of(record, folder) for record in records), path)


def row_of(record: Record, folder: Path | None = None) -> dict[str, Any]:
    """What a list says about a record; its path under `folder` relative, otherwise absolute.

    >>> row_of(Record("a", "/clips/a.wav", end=2.0), Path("/clips"))
    {'key': 'a', 'path': 'a.wav', 'end': 2.0}
    """
    values: dict[str, Any] = {"key": record.key, "path": record.path}
    if not is_address(record.path):
        audio = Path(record.path).absolute()
        if folder and audio.is_relative_to(folder):
            audio = audio.relative_to(folder)
        values["path"] = audio.as_posix()
    values["start"] = record.start or None
    for name in ("end", "duration", "speaker", "language"):
        values[name] = getattr(record, name)
    values["labels"] = dict(record.labels) or None
    values["scores"] = dict(record.scores) or None
    values["weight"] = None if record.weight == 1 else record.weight
    return {name: value for name, value in values.items() if value is not None}


def find_recordings(sources: str | Path | Sequence[str | Path]) -> list[Record]:
    """Records for lists (.jsonl, .csv, .scp), audio files, folders (searched deeply) and globs.

    All of them may be fsspec addresses, such as s3://bucket/calls. A file's key is its path under
    the folder or beside the glob's fixed part, without suffix. The source "-" (or /dev/stdin) is
    standard input: a path a line, which without suffix is the key. A folder without audio but with
    a wav.scp is Kaldi's.

    Raises:
        FileNotFoundError: if a source names nothing
        ValueError: if a manifest is broken or two recordings have one key
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    records: list[Record] = []
    for source in sources:
        records += _expand(source)
    seen: set[str] = set()
    twice = [r.key for r in records if r.key in seen or seen.add(r.key)]  # type: ignore[func-returns-value]
    if twice:
        raise come_twice(len(twice), twice[0])
    return records


def come_twice(count: int, key: str) -> ValueError:
    """What to raise where keys come twice.

    >>> str(come_twice(2, "a"))[:30]
    "2 keys come twice, such as 'a'"
    """
    return ValueError(
        f"{count} keys come twice, such as {key!r}; give their common folder or a "
        "quoted glob (keys then have folders in them), rename files that differ in suffix "
        "only, or write a list with keys of your own."
    )


def _expand(source: str | Path) -> list[Record]:
    if isinstance(source, str) and is_address(source):
        files, local = open_folder(source)
        if not is_local(files):
            return _from_address(source)
        source = local
    path = Path(source)
    if str(source) in ("-", "/dev/stdin"):
        return _from_standard_input()
    if path.is_dir():
        found = _audio_under(path)
        if not found and (path / "wav.scp").is_file():
            return read_manifest(path / "wav.scp")
        if not found:
            raise FileNotFoundError(
                f"{source} holds no audio; it is searched for {', '.join(AUDIO_SUFFIXES)}."
            )
        return [_record_of(file, path) for file in found]
    if path.suffix.lower() in READERS:
        return read_manifest(path)
    if path.exists():
        return [_record_of(path, path.parent)]
    matches = [Path(name) for name in sorted(glob.glob(str(source), recursive=True))]
    files = [f for m in matches for f in (_audio_under(m) if m.is_dir() else [m])]
    if not files:
        raise FileNotFoundError(
            f"{source} is no file or folder and matches no audio; check the path."
        )
    root = Path(glob_root(str(source)))
    return [_record_of(file, root) for file in dict.fromkeys(files)]


def _from_standard_input() -> list[Record]:
    records = [Record(key_of(path), path) for path in paths_in(sys.stdin.buffer)]
    if not records:
        raise FileNotFoundError("- is standard input, which names nothing; give a path a line.")
    return records


def _from_address(address: str) -> list[Record]:
    inner, chained, _ = address.partition("::")
    if PurePath(inner).suffix.lower() in READERS:
        if chained:
            raise ValueError(f"{address} is a list within another file; copy it out of there.")
        return read_manifest(address)
    if chained and not glob.has_magic(inner) and PurePath(inner).suffix:
        return [Record(key_of(address), address)]
    root, found = find_files(address, AUDIO_SUFFIXES)
    if not found:
        raise FileNotFoundError(
            f"{address} names no audio; check the address (folders are searched for "
            f"{', '.join(AUDIO_SUFFIXES)})."
        )
    prefix = f"{root.rstrip('/')}/"
    keys = [str(PurePath(path.removeprefix(prefix)).with_suffix("")) for path in found]
    return [Record(key, path) for key, path in zip(keys, found, strict=True)]


def _audio_under(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)


def glob_root(pattern: str) -> str:
    """The folder before the first part of `pattern` that has a wildcard.

    >>> glob_root("corpus/*/clips/*.wav")
    'corpus'
    """
    parts: list[str] = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return str(Path(*parts)) if parts else "."


def _record_of(file: Path, root: Path) -> Record:
    key = file.relative_to(root).with_suffix("").as_posix()
    return Record(key=key, path=str(file))
