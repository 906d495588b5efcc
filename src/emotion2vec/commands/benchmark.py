"""`emotion2vec benchmark`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, RowFormat, command_line, row_lines, shows_bar

if TYPE_CHECKING:
    from emotion2vec.benchmark.run import Given


def benchmark(
    backbone: list[str],
    /,
    *,
    corpora: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    emobox: Path | None = None,
    folds: Path | None = None,
    folds_name: str | None = None,
    protocol: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    validation: str | None = None,
    num_folds: int | None = None,
    paper_star: bool = False,
    task: Annotated[list[str], Parameter(consume_multiple=True)] = ["emotion"],  # noqa: B006
    head: str | None = None,
    layers: str | None = None,
    seeds: int = 5,
    epochs: int = 100,
    hidden_dim: int = 256,
    no_baselines: bool = False,
    format: RowFormat = "table",
    quiet: bool = False,
) -> int:
    """Score backbones on tasks, corpora and named protocols, with the baselines beside.

    emotion2vec benchmark runs/tiny/final mfcc --corpora ravdess=downloads/ravdess --out results

    Every backbone on every task, corpus and protocol is a cell, a JSON file in the folder of
    results. A cell that is there is not made again; one that fails is a row with its error, and the
    others go on. The constant, the speaker-only and the trivial baseline are cells, too.

    Parameters
    ----------
    backbone
        Folders or hub names of encoders, random:NAME, hf:NAME, logmel, mfcc, spectrogram, afcn,
        egemaps; or the baselines constant, speaker-only, trivial.
    corpora
        NAME=FOLDER for the corpora that `emotion2vec corpora` lists; NAME=LIST or NAME=FOLDER for
        your own, as a csv, a jsonl, or folders named after emotions; with --emobox, NAME for each
        of its corpora, or NAME=FOLDER with its downloads.
    out
        Folder of results: TASK/CORPUS/PROTOCOL/BACKBONE.HEAD.json.
    emobox
        A copy of github.com/emo-box/EmoBox, whose lists and official folds are read.
    folds
        File of folds of one corpus, for the protocols official and speaker-folds.
    folds_name
        Which folds in the file; its first if none.
    protocol
        One or more of official, session-out, speaker-out, speaker-folds, random. If none: official
        folds where a corpus has any, else what emotion2vec corpora names first, else by speaker.
    validation
        Cut from training where folds have none: speakers, next-speaker, clips or as-many; the
        protocol's own if none.
    num_folds
        Of speaker-folds (5) and random (10).
    paper_star
        Select on the test part, as the paper's starred rows do; marked in every print.
    task
        One or more of emotion, sentiment, conversation, dimensions, frame-dimensions.
    head
        What is trained on the frames; the task's or the backbone's own if none.
    layers
        A cell for each: numbers with commas between, 0 for what enters the first block, or all.
    seeds
        How many seeds of a head.
    epochs
        Of a head's training.
    hidden_dim
        Units of a head's hidden layer; of afcn, its width, 256 being AlexNet's.
    no_baselines
        Leave out those that are not named.
    format
        How the results are printed: "json" is one object a line.
    quiet
        No progress bars, and no line for each cell that is done.
    """
    from emotion2vec.benchmark.run import Plan, run_benchmark
    from emotion2vec.benchmark.tables import columns, row_of, tables
    from emotion2vec.probing.protocols import SplitOptions

    given = dict(_given(text, emobox) for text in corpora)
    if len(given) < len(corpora) or (folds is not None and len(corpora) > 1):
        raise ValueError(
            f"{len(corpora)} corpora are given; give each a name of its own, and one alone where "
            "folds come from a file."
        )
    options = SplitOptions(validation, num_folds, folds, folds_name)
    plan = Plan(
        backbones=backbone,
        corpora=given,
        out=out,
        tasks=task,
        protocols=protocol or (),
        options=options,
        paper_star=paper_star,
        layers=_layers(layers),
        head=head,
        epochs=epochs,
        hidden_dim=hidden_dim,
        seeds=seeds,
        baselines=not no_baselines,
        command=partial(_command, dict(zip(given, corpora, strict=True)), emobox, options, out),
    )
    cells = []
    for cell in run_benchmark(plan, progress=shows_bar(quiet=quiet)):
        cells.append(cell)
        if not quiet:
            names = (cell["task"], cell["corpus"], cell["protocol"]["name"])
            state = "failed" if "error" in cell else "done"
            print(f"{state}: {'/'.join(names)}: {cell['backbone']['name']}", file=sys.stderr)
    if format == "table":
        print(tables(cells))
    else:
        rows = [row_of(cell) for cell in cells]
        header, line = row_lines(format, columns(rows))
        print("\n".join([*header, *map(line, rows)]))
    failed = any("error" in cell or cell["errors"] for cell in cells)
    return SOME_FAILED if failed else 0


def _layers(text: str | None) -> Any:
    """Return the numbers in "0,3,6"; "all" as it is."""
    if text is None or text == "all":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"layers are {text!r}; give numbers with commas between, or all."
        ) from None


def _given(text: str, emobox: Path | None) -> tuple[str, Given]:
    """Return the name of a corpus and how it is read."""
    from emotion2vec.benchmark.run import Given
    from emotion2vec.corpora.known import CORPORA, read_corpus
    from emotion2vec.manifest import read_manifest

    name, _, where = text.partition("=")
    if not name or not (where or emobox):
        raise ValueError(f"the corpus is {text!r}; it must be NAME=FOLDER or NAME=LIST.")
    known = CORPORA.get(name)
    facts = (known.traps, known.protocols[0]) if known else ((), None)
    if Path(where).is_file():  # a list may be labelled with something else than emotions
        return name, Given(partial(read_manifest, where), *facts)
    place = Path(where) if where else None
    return name, Given(partial(read_corpus, name, place, emobox=emobox), *facts)


def _command(
    corpora: Mapping[str, str],
    emobox: Path | None,
    split: Any,
    out: Path,
    cell: Mapping[str, Any],
) -> str:
    """Return the words that make one cell again."""
    head = cell["head"]
    options = {
        "corpora": corpora[cell["corpus"]],
        "emobox": emobox,
        "folds": split.file,
        "folds_name": split.entry,
        "protocol": cell["protocol"]["name"],
        "validation": split.validation,
        "num_folds": split.num_folds,
        "paper_star": [] if cell["protocol"]["starred"] else None,
        "task": cell["task"],
        "head": head["name"] if "epochs" in head else None,
        "layers": cell["backbone"]["layer"],
        "seeds": len(cell["seeds"]),
        "epochs": head.get("epochs"),
        "hidden_dim": head.get("hidden_dim"),
        "no_baselines": [],
        "out": out,
    }
    return command_line("benchmark", [cell["backbone"]["name"]], options)
