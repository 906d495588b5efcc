"""`emotion2vec recognize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from emotion2vec.commands.output import SOME_FAILED, Row, RowFormat, json_line, row_lines

if TYPE_CHECKING:
    from emotion2vec.manifest import Record
    from emotion2vec.recognize import Recognizer

COLUMNS = ("key", "path", "label", "score", "start", "end", "duration", "error")


def recognize(
    sources: list[str],
    /,
    *,
    model: str = "plus-large",
    labels: str | None = None,
    abstain: float = 0.0,
    language: Literal["en", "zh", "both"] = "en",
    out: Path | None = None,
    format: RowFormat = "table",
    device: str | None = None,
    batch_seconds: float = 60.0,
    quiet: bool = False,
) -> int:
    """Say which emotion is in each recording.

    emotion2vec recognize call.wav 'more/*.mp3' --labels happy,sad,angry,neutral --abstain 0.5

    A recording that cannot be read is a row with its error, and the exit code is 3. With --out, a
    run that was killed goes on where it stopped.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists (.jsonl, .csv, wav.scp); - reads paths from standard
        input, one a line.
    model
        Folder of a classifier, name of a published one (emotion2vec models), or hub name.
    labels
        Only these, with commas between; scores are renormalized over them.
    abstain
        Answer "unknown" where the best score is lower.
    language
        Of published labels, which are Chinese and English.
    out
        File for the answers, .jsonl or .csv; without it they are printed.
    format
        How answers are printed: "json" is one object a line.
    device
        Where to compute, such as cpu or cuda.
    batch_seconds
        Audio in a batch: bounds the memory, changes no answer.
    quiet
        No progress bar.
    """
    from emotion2vec.manifest import find_recordings
    from emotion2vec.recognize import Recognizer

    if out is not None and out.suffix not in (".jsonl", ".csv"):
        raise ValueError(f"--out is {out}; give a file that ends in .jsonl or .csv.")
    records = find_recordings(sources)
    recognizer = Recognizer.from_pretrained(
        model,
        labels=None if labels is None else [label.strip() for label in labels.split(",")],
        abstain=abstain,
        language=language,
        device=device,
        batch_seconds=batch_seconds,
    )
    if out is not None:
        return _write(recognizer, records, out, model, progress=not quiet)
    width = min(max(len(record.key) for record in records), 60)
    header, line = row_lines(format, _columns(recognizer), lambda row: _table_line(row, width))
    if format == "table":
        header = [f"{'recording':<{width}}  {'label':<10} score  seconds  next"]
    print("\n".join(header), end="\n" if header else "")
    failed = 0
    # A bar would run through answers that are printed to the same terminal.
    bar = not quiet and not sys.stdout.isatty()
    for found in recognizer.recognize_all(records, progress=bar):
        failed += bool(found.error)
        print(line(found.to_dict()), flush=True)
    if format == "table":
        print(f"\nlabel: {recognizer.policy}.")
    return SOME_FAILED if failed else 0


def _columns(recognizer: Recognizer) -> list[str]:
    return [*COLUMNS, "policy", *(f"scores.{label}" for label in recognizer.labels)]


def _table_line(row: Row, width: int) -> str:
    """Return the line of a recording for people."""
    key = row["key"] if len(row["key"]) <= width else "..." + row["key"][3 - width :]
    if row["error"]:
        return f"{key:<{width}}  error: {row['error']}"
    ranked = sorted(row["scores"].items(), key=lambda item: -item[1])
    first = 1 if row["label"] == ranked[0][0] else 0  # where it abstains, all are "next"
    others = ", ".join(f"{label} {score:.2f}" for label, score in ranked[first : first + 2])
    facts = f"{row['label']:<10} {row['score']:5.2f}  {row['duration']:7.2f}"
    return f"{key:<{width}}  {facts}  {others}"


def _part(out: Path, settings: list[str]) -> Path:
    """Return where unfinished answers stand: another place for other settings."""
    import hashlib

    digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]
    return out.with_name(f".{out.name}.{digest}.part")


def _is_same(record: Record, row: Row | None) -> bool:
    """Whether a row of an earlier run answers for this very part of a file."""
    if row is None or row["start"] != record.start:
        return False
    return record.end is None or row["end"] == record.end


def _write(
    recognizer: Recognizer, records: list[Record], out: Path, model: str, *, progress: bool
) -> int:
    """Write the answers to a file; what an earlier run left beside it is taken over."""
    from emotion2vec.atomic import atomic_path
    from emotion2vec.jsonl import read_jsonl

    part = _part(out, [model, recognizer.policy, *recognizer.labels])
    rows = {row["key"]: row for row in read_jsonl(part) if not row["error"]}
    todo = [record for record in records if not _is_same(record, rows.get(record.key))]
    part.parent.mkdir(parents=True, exist_ok=True)
    kept = "".join(json_line(row) + "\n" for row in rows.values())
    with atomic_path(part) as path:  # a last line that a kill cut short is gone
        path.write_text(kept, encoding="utf-8")
    with part.open("a", encoding="utf-8") as file:
        for found in recognizer.recognize_all(todo, progress=progress):
            rows[found.key] = found.to_dict()
            file.write(json_line(rows[found.key]) + "\n")
            file.flush()
    answers = [rows[record.key] for record in records]
    header, line = row_lines(
        "csv" if out.suffix == ".csv" else "json", _columns(recognizer), json_line
    )
    with atomic_path(out) as path:
        path.write_text("\n".join([*header, *map(line, answers)]) + "\n", encoding="utf-8")
    part.unlink()
    failed = sum(bool(row["error"]) for row in answers)
    print(f"{len(answers) - failed} recognized, {failed} failed; {out} lists them.")
    print(f"label: {recognizer.policy}.")
    return SOME_FAILED if failed else 0
