"""`emotion2vec label`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, Format, Row, align, shows_bar, tell_left_out
from emotion2vec.commands.resuming import part_path, resumed_rows

if TYPE_CHECKING:
    from emotion2vec.labelling import Opinion
    from emotion2vec.manifest import Record
    from emotion2vec.recognize import Recognizer


def label(
    *sources: Annotated[str, Parameter(required=True)],
    teacher: str,
    out: Path,
    views: str = "whole,slower,faster,noise,middle",
    min_score: float = 0.6,
    min_agreement: float = 1.0,
    max_ratio: float = 3.0,
    drop: str = "unknown,other,<unk>",
    hard: bool = False,
    weigh: bool = False,
    device: str | None = None,
    batch_seconds: float = 20.0,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Label recordings by a teacher: a list for the next round of fine-tuning.

    emotion2vec label 'calls/*.wav' --teacher runs/round1/final --out round2.jsonl

    emotion2vec finetune --model base --data labelled.jsonl round2.jsonl --out runs/round2

    Each recording is heard in several views. Its label is kept where the teacher is sure of it
    and all views agree; classes that come too often are cut to their surest recordings. A run
    that was killed goes on where it stopped.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists; labels in lists are not looked at.
    teacher
        A classifier: folder, published name or hub name.
    out
        List to write, .jsonl: the recordings that were kept, with label and scores.
    views
        How each recording is heard, with commas between.
    min_score
        Mean probability of the label over the views that it takes.
    min_agreement
        Part of the views that must agree on the label.
    max_ratio
        Recordings of a class over those of the rarest one; 0 keeps all.
    drop
        Labels that are no emotion, with commas between: such recordings are not kept.
    hard
        Write labels only, without the teacher's scores as soft targets.
    weigh
        Let each recording count as much as its score.
    device
        Where to compute, such as cpu or cuda.
    batch_seconds
        Audio in a batch, views not counted.
    format
        How the summary is printed.
    quiet
        No progress bar.
    """
    from emotion2vec.labelling import Rules, judge, labelled
    from emotion2vec.manifest import find_recordings, write_manifest
    from emotion2vec.recognize import Recognizer

    if out.suffix != ".jsonl" or out.is_dir():
        raise ValueError(f"--out is {out}; give a file that ends in .jsonl.")
    rules = Rules(min_score, min_agreement, max_ratio, _split(drop), soft=not hard, weigh=weigh)
    records = find_recordings(sources)
    recognizer = Recognizer.from_pretrained(teacher, device=device)
    names = _split(views)
    part = part_path(out, recognizer.fingerprint(names))

    def answer(todo: Sequence[Record]) -> Iterator[dict[str, Any]]:
        return _rows(recognizer, todo, names, batch_seconds, progress=shows_bar(quiet=quiet))

    rows = resumed_rows(records, part, answer)
    found = [_opinion(record, row) for record, row in zip(records, rows, strict=True)]
    verdicts = judge(found, rules)
    kept = [labelled(o, rules) for o in found if verdicts[o.record.key] == "kept"]
    write_manifest(kept, out)
    part.unlink()
    _summarize(found, verdicts, out, format)
    errors = {o.record.key: o.error for o in found if o.error}
    tell_left_out(errors)
    return SOME_FAILED if errors else 0


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _rows(
    teacher: Recognizer,
    records: Sequence[Record],
    views: Sequence[str],
    batch_seconds: float,
    *,
    progress: bool,
) -> Iterator[dict[str, Any]]:
    """Return what the teacher thinks as rows that can be kept."""
    from emotion2vec.labelling import opinions

    for opinion in opinions(
        teacher, records, views=views, batch_seconds=batch_seconds, progress=progress
    ):
        record = opinion.record
        yield {
            "key": record.key,
            "path": record.path,
            "start": record.start,
            "end": record.end,
            "duration": record.duration,
            "label": opinion.label,
            "scores": opinion.scores,
            "agreement": opinion.agreement,
            "error": opinion.error,
        }


def _opinion(record: Record, row: Row) -> Opinion:
    """Return the opinion in a row that was kept."""
    from dataclasses import replace

    from emotion2vec.labelling import Opinion

    heard = replace(record, duration=row["duration"])
    return Opinion(heard, row["label"], row["scores"], row["agreement"], row["error"])


def _summarize(
    found: Sequence[Opinion], verdicts: Mapping[str, str], out: Path, format: Format
) -> None:
    """Print what became of the recordings of each label."""
    from emotion2vec.labelling import VERDICTS

    counts = Counter((o.label, verdicts[o.record.key]) for o in found)
    labels = sorted({o.label for o in found if o.label})
    total = Counter(verdicts.values())
    if format == "json":
        of_labels = {name: {v: counts[name, v] for v in VERDICTS} for name in labels}
        print(json.dumps({"out": str(out), "verdicts": total, "labels": of_labels}))
        return
    shown = [verdict for verdict in VERDICTS if total[verdict]]
    table = [["label", *shown]]
    table += [[name, *(str(counts[name, verdict]) for verdict in shown)] for name in labels]
    table.append(["all", *(str(total[verdict]) for verdict in shown)])
    print("\n".join(align(table)))
    print(f"\n{total['kept']} of {len(found)} recordings are labelled in {out}.")
