"""`emotion2vec recognize`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import (
    SOME_FAILED,
    Row,
    RowFormat,
    fit,
    row_lines,
    shows_bar,
    text_width,
)
from emotion2vec.commands.recognizers import open_recognizer
from emotion2vec.commands.resuming import part_path, resumed_rows

if TYPE_CHECKING:
    from emotion2vec.manifest import Record
    from emotion2vec.recognize import Recognizer

COLUMNS = ("key", "path", "label", "score", "start", "end", "duration", "error")


def recognize(
    *sources: Annotated[str, Parameter(required=True)],
    model: str | None = None,
    labels: str | None = None,
    abstain: float = 0.0,
    language: Literal["en", "zh", "both"] = "en",
    out: Path | None = None,
    format: RowFormat = "table",
    device: str | None = None,
    batch_seconds: float = 20.0,
    quiet: bool = False,
) -> int:
    """Say which emotion is in each recording.

    emotion2vec recognize call.wav 'more/*.mp3' --labels happy,sad,angry,neutral --abstain 0.5

    find calls -name '*.wav' | emotion2vec recognize - --out calls.csv

    A recording that cannot be read is a row with its error, and the exit code is 3. With --out, a
    run that was killed goes on where it stopped.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists (.jsonl, .csv, wav.scp); - reads paths from standard
        input, one a line.
    model
        Folder of a classifier, name of a published one (emotion2vec models), or hub name; an .onnx
        file that emotion2vec export wrote, which needs no torch; without, emotion2vec-mini, which
        ships in this package and needs no network.
    labels
        Only these, with commas between, in English or Chinese; scores are renormalized over them.
    abstain
        Answer "unknown" where the best score is lower; 0 never does.
    language
        Of the labels; published models have them in Chinese and English.
    out
        File for the answers, .jsonl or .csv; without it they are printed.
    format
        How answers are printed: "json" is one object a line. With --out, how the summary is.
    device
        Where to compute, such as cpu or cuda; of an .onnx file, a provider of onnxruntime.
    batch_seconds
        Audio in a batch: bounds the memory, changes no answer. CPUs are slower with more,
        accelerators faster.
    quiet
        No progress bar.
    """
    from emotion2vec.manifest import find_recordings

    if out is not None and (out.suffix not in (".jsonl", ".csv") or out.is_dir()):
        raise ValueError(f"--out is {out}; give a file that ends in .jsonl or .csv.")
    records = find_recordings(sources)
    recognizer = open_recognizer(
        model,
        labels=labels,
        quiet=quiet,
        abstain=abstain,
        language=language,
        device=device,
        batch_seconds=batch_seconds,
    )
    if out is None:
        failed = _print(recognizer, records, format, quiet=quiet)
    else:
        rows = _write(recognizer, records, out, _part(out, model, recognizer), quiet=quiet)
        failed = sum(bool(row["error"]) for row in rows)
        _summarize(len(rows) - failed, failed, recognizer.policy, out, format)
    return SOME_FAILED if failed else 0


def _print(recognizer: Recognizer, records: list[Record], format: RowFormat, *, quiet: bool) -> int:
    """Print a line for each recording; return how many failed."""
    if format == "table":
        key_width = min(max(9, *(text_width(record.key) for record in records)), 60)
        label_width = max(map(text_width, ("unknown", *recognizer.labels)))
        header = [
            f"{fit('recording', key_width)}  {fit('label', label_width)}  score  seconds  next"
        ]
        line: Callable[[Row], str] = partial(
            _table_line, key_width=key_width, label_width=label_width
        )
    else:
        header, line = row_lines(format, _columns(recognizer))
    failed = 0
    for row in header:
        print(row, flush=True)
    for found in recognizer.recognize_all(records, progress=shows_bar(quiet=quiet, printing=True)):
        failed += bool(found.error)
        print(line(found.to_dict()), flush=True)
    if format == "table":
        print(f"\nlabel: {recognizer.policy}.")
    return failed


def _summarize(done: int, failed: int, policy: str, out: Path, format: RowFormat) -> None:
    facts = {"recognized": done, "failed": failed, "out": str(out), "policy": policy}
    if format == "table":
        print(f"{done} recognized, {failed} failed; {out} lists them.\nlabel: {policy}.")
        return
    header, line = row_lines(format, list(facts))
    print("\n".join([*header, line(facts)]))


def _columns(recognizer: Recognizer) -> list[str]:
    scores = [f"scores.{label}" for label in recognizer.labels]
    return [
        *COLUMNS,
        "policy",
        *scores,
        *(f"dimensions.{n}" for n in recognizer.classifier.dimensions),
    ]


def _table_line(row: Row, *, key_width: int, label_width: int) -> str:
    """Return the line of a recording for people."""
    key = fit(row["key"], key_width)
    if row["error"]:
        return f"{key}  error: {row['error']}"
    ranked = sorted(row["scores"].items(), key=lambda item: -item[1])
    first = 1 if ranked and row["label"] == ranked[0][0] else 0  # where it abstains, all are "next"
    others = [*ranked[first : first + 2], *row["dimensions"].items()]
    label, score = fit(row["label"] or "", label_width), row["score"]
    shown = "     " if score is None else f"{score:5.2f}"
    more = ", ".join(f"{name} {value:.2f}" for name, value in others)
    return f"{key}  {label}  {shown}  {row['duration']:7.2f}  {more}".rstrip()


def _part(out: Path, model: str | None, recognizer: Recognizer) -> Path:
    digest = recognizer.fingerprint([model or "", recognizer.policy], recognizer.labels)
    return part_path(out, digest)


def _write(
    recognizer: Recognizer, records: list[Record], out: Path, part: Path, *, quiet: bool
) -> list[Row]:
    """Write the answers to a file and return them; what a killed run left in `part` is kept."""
    from emotion2vec.atomic import atomic_path

    def answer(todo: Sequence[Record]) -> Iterator[dict[str, Any]]:
        bar = shows_bar(quiet=quiet)
        for found in recognizer.recognize_all(todo, in_order=False, progress=bar):
            yield found.to_dict()

    answers = resumed_rows(records, part, answer)
    header, line = row_lines("csv" if out.suffix == ".csv" else "json", _columns(recognizer))
    with atomic_path(out) as path, path.open("w", encoding="utf-8", errors="backslashreplace") as f:
        f.writelines(f"{text}\n" for text in (*header, *map(line, answers)))
    part.unlink()
    return answers
