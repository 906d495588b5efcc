"""`emotion2vec transfer`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from emotion2vec.commands.output import (
    SOME_FAILED,
    Row,
    RowFormat,
    align,
    command_line,
    row_lines,
    shows_bar,
    tell_left_out,
)


def transfer(
    backbone: list[str],
    /,
    *,
    corpora: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    map: str = "",
    num_folds: int = 5,
    head: str | None = None,
    seeds: int = 1,
    epochs: int = 100,
    layer: int | None = None,
    format: RowFormat = "table",
    quiet: bool = False,
) -> int:
    """Train on each corpus, test on each other one: a matrix of scores.

    emotion2vec transfer runs/mine/final --corpora ravdess=RAVDESS mine=mine.jsonl --out results

    All pairs are on the classes that all corpora share; "excited" counts as "happy". The diagonal
    is within the corpus, in folds by speaker. A run that was killed goes on where it stopped.

    Parameters
    ----------
    backbone
        Folders or hub names of encoders, random:NAME, hf:NAME, logmel, mfcc, spectrogram, afcn,
        egemaps, trivial.
    corpora
        NAME=WHERE: the folder of a corpus that emotion2vec corpora lists, or one's own: a list, or
        folders named after the emotions.
    out
        Folder of results: transfer/ gets a file for each backbone, and matrix.png.
    map
        Labels that count as another, with commas between, such as calm=neutral,excited=excited.
    num_folds
        Of the diagonal.
    head
        What is trained on the frames; the backbone's own if none.
    seeds
        How many heads to average over.
    epochs
        Of the heads' training.
    layer
        A block's output, from 1; 0 for what enters the first block; none for the model's output.
    format
        How the results are printed: "json" is one object a line.
    quiet
        No progress bars.
    """
    import matplotlib  # noqa: F401  what would fail after the work fails before it

    from emotion2vec.backbones import load_backbone
    from emotion2vec.benchmark.transfer import transfer as run
    from emotion2vec.corpora.known import read_corpus
    from emotion2vec.probing.heads import HeadConfig

    named = _pairs(corpora, "--corpora", "mine=mine.jsonl")
    recordings = {name: read_corpus(name, Path(where)) for name, where in named}
    label_map = dict(_pairs(map.split(",") if map else [], "--map", "calm=neutral"))
    backbones = [load_backbone(name, layer=layer) for name in backbone]
    options = {
        "corpora": corpora, "map": map or None, "num_folds": num_folds, "head": head,
        "seeds": seeds, "epochs": epochs, "layer": layer, "out": out,
    }  # fmt: skip
    found = [
        run(
            recordings,
            one,
            out,
            label_map=label_map,
            num_folds=num_folds,
            head=HeadConfig(head or one.default_head, epochs=epochs),
            seeds=range(seeds),
            layer=layer,
            command=command_line("transfer", [name], options),
            progress=shows_bar(quiet=quiet),
        )
        for name, one in zip(backbone, backbones, strict=True)
    ]
    _print(found, format)
    _draw(found, out / "transfer" / "matrix.png")
    print(f"Results and picture are in {out / 'transfer'}.", file=sys.stderr)
    errors = {key: error for values in found for key, error in values["errors"].items()}
    tell_left_out(errors)
    return SOME_FAILED if errors else 0


Results = Sequence[dict[str, Any]]
"""Of each backbone, what its file holds."""


def _pairs(words: Sequence[str], option: str, example: str) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        name, _, value = (part.strip() for part in word.partition("="))
        if not name or not value:
            raise ValueError(f"{option} has {word!r}; write NAME=VALUE, such as {example}.")
        pairs.append((name, value))
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"{option} has a name twice ({', '.join(words)}); give each once.")
    return pairs


def _print(found: Results, format: RowFormat) -> None:
    if format == "table":
        print("\n".join(line for values in found for line in _table(values)))
        return
    rows = [_row(values, cell) for values in found for cell in values["matrix"]]
    header, line = row_lines(format, list(rows[0]))
    print("\n".join([*header, *map(line, rows)]))


def _row(values: Row, cell: Row) -> Row:
    low, high = cell["interval_95"]["ua"]
    return {
        "backbone": values["backbone"]["name"],
        "head": values["head"]["name"],
        **{name: cell[name] for name in ("train", "test", "classes", "clips")},
        **cell["scores"],
        "ua_low": low,
        "ua_high": high,
    }


def _table(values: Row) -> list[str]:
    names = list(values["corpora"])
    cells = {(cell["train"], cell["test"]): cell for cell in values["matrix"]}
    rows = [["trained on", *(f"tested on {name}" for name in names)]]
    for train in names:
        row = [train]
        for test in names:
            cell = cells[train, test]
            ua, low, high = (100 * v for v in (cell["scores"]["ua"], *cell["interval_95"]["ua"]))
            row.append(f"{ua:.1f} [{low:.1f}, {high:.1f}]")
        rows.append(row)
    within = "; ".join(f"{name}: {cells[name, name]['protocol']}" for name in names)
    return [
        f"{values['backbone']['name']}, head {values['head']['name']}, "
        f"classes {', '.join(values['labels'])}: UA in percent [95 % interval over speakers].",
        *align(rows),
        f"Chance is {100 / len(values['labels']):.1f}. On the diagonal: {within}.",
        "",
    ]


def _draw(found: Results, target: Path) -> None:
    import numpy as np

    from emotion2vec.atomic import atomic_path
    from emotion2vec.plots import transfer_figure

    names = list(found[0]["corpora"])
    matrices = {}
    for values in found:
        scores = {(cell["train"], cell["test"]): cell["scores"]["ua"] for cell in values["matrix"]}
        matrix = np.array([[scores[train, test] for test in names] for train in names])
        matrices[values["backbone"]["name"]] = matrix
    with atomic_path(target) as path:
        figure = transfer_figure(matrices, names, label="UA", chance=1 / len(found[0]["labels"]))
        figure.savefig(path, format="png", dpi=130, bbox_inches="tight")
