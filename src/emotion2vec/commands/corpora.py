"""`emotion2vec corpora`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion2vec.commands.output import RowFormat, row_lines

_FACTS = (
    *("name", "title", "language", "speakers", "classes", "licence", "source", "layout"),
    *("protocols", "traps"),
)
_COUNTS = ("label", "value", "recordings", "speakers")


def corpora(
    name: str | None = None,
    /,
    *,
    root: Path | None = None,
    emobox: Path | None = None,
    format: RowFormat = "table",
) -> int:
    """List the corpora that are known, say what is known of one, or count what a folder holds.

    emotion2vec corpora ravdess --root downloads/ravdess

    Counts are by label and speaker, with how often the speaker alone tells the emotion. Missing
    files are one error that counts them.

    Parameters
    ----------
    name
        A corpus; none for the list, or, with --root, for a corpus of your own.
    root
        The corpus's folder as its owners distribute it, read and counted. Without a name: your
        list (csv, tsv, jsonl), or your folder of folders named after emotions. With --emobox: the
        folder that holds EmoBox's downloads, where it is another one.
    emobox
        A copy of github.com/emo-box/EmoBox: lists its corpora, or reads the one named, with its
        official folds.
    format
        How the answer is printed.
    """
    if emobox is not None and name is None:
        _print_rows(_emobox_rows(emobox), format)
    elif root is None and emobox is None:
        _print_facts(name, format)
    else:
        _print_counts(name, root, emobox, format)
    return 0


def _print_facts(name: str | None, format: RowFormat) -> None:
    from emotion2vec.corpora.known import CORPORA, find_corpus

    chosen = list(CORPORA.values()) if name is None else [find_corpus(name)]
    rows = [{fact: getattr(corpus, fact) for fact in _FACTS} for corpus in chosen]
    if format == "csv":
        rows = [
            {k: "; ".join(v) if isinstance(v, tuple) else v for k, v in r.items()} for r in rows
        ]
    if format != "table":
        _print_rows(rows, format, _FACTS)
    elif name is None:
        short = [
            {**row, "classes": len(row["classes"]), "speakers": row["speakers"] or None}
            for row in rows
        ]
        _print_rows(short, format, _FACTS[:6])
        print("\nemotion2vec corpora NAME: the folder it is read from, its protocols and traps.")
    else:
        for fact, value in rows[0].items():
            if fact != "traps":
                print(f"{fact}: {', '.join(value) if isinstance(value, tuple) else value}")
        print("traps:", *(f"  {trap}" for trap in rows[0]["traps"]), sep="\n")


def _emobox_rows(folder: Path) -> list[dict[str, Any]]:
    from emotion2vec.corpora.emobox import EMOBOX, emobox_folds, emobox_names

    there = emobox_names(folder)
    return [
        {
            "name": name,
            **EMOBOX[name]._asdict(),
            "folds": len(emobox_folds(folder, name)) if name in there else None,
        }
        for name in EMOBOX
    ]


def _print_counts(
    name: str | None, root: Path | None, emobox: Path | None, format: RowFormat
) -> None:
    from emotion2vec.corpora.known import find_corpus, read_corpus
    from emotion2vec.corpora.summary import summary

    if name is None:
        title = str(root)
    else:
        title = find_corpus(name).title if emobox is None else f"EmoBox's {name}"
    found = summary(read_corpus(name or "", root, emobox=emobox))
    if format == "json":
        _print_rows([found], format)
        return
    if format == "table":
        facts = [f"{found['recordings']:,} recordings"]
        facts += [f"{found['hours']:.3f} hours"] if found["hours"] is not None else []
        facts += [f"{found['speakers']:,} speakers"] if found["speakers"] else []
        print(f"{title}: {', '.join([*facts, *found['languages']])}\n")
    _print_rows(found["labels"], format, _COUNTS)
    if format == "table" and found["by_speaker"] is not None:
        print(
            f"\nThe speaker alone tells the emotion of {100 * found['by_speaker']:.1f} %; "
            f"always the commonest emotion: {100 * found['constant']:.1f} %."
        )


def _print_rows(
    rows: Sequence[Mapping[str, Any]], format: RowFormat, columns: Sequence[str] | None = None
) -> None:
    columns = list(columns or rows[0])
    if format != "table":
        head, line = row_lines(format, columns)
        print(*head, *map(line, rows), sep="\n")
        return
    cells = [columns, *([_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
