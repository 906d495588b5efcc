"""`emotion2vec probe`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, Format, tell_left_out


def probe(
    model: list[str],
    /,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    folds: Path | None = None,
    folds_name: str | None = None,
    num_folds: int = 5,
    seeds: int = 1,
    epochs: int = 100,
    layer: int | None = None,
    no_baselines: bool = False,
    out: Path | None = None,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Score frozen encoders with the paper's linear probe, beside the baselines.

    emotion2vec probe runs/tiny/final --data corpus.jsonl --folds folds.json --out runs/tiny/probe

    The same architecture with random weights, log-mel statistics (with scikit-learn) and the
    constant answer are scored beside.

    Parameters
    ----------
    model
        Folders or hub names of encoders.
    data
        Manifests whose lines have key, path, speaker and labels: {"emotion": ...}.
    folds
        File of folds; without it, folds are made by speaker.
    folds_name
        Which folds in the file; its first if none.
    num_folds
        How many folds to make by speaker.
    seeds
        How many seeds to average over.
    epochs
        Of the probe's training.
    layer
        A block's output, from 1; 0 for what enters the first block; none for the model's output.
    no_baselines
        Leave them out, where they are known already.
    out
        Folder for results.txt, results.json, confusion.png and map.png.
    format
        How the results are printed.
    quiet
        No progress bars.
    """
    from emotion2vec.atomic import atomic_path
    from emotion2vec.manifest import find_recordings
    from emotion2vec.probing.folds import make_folds
    from emotion2vec.probing.heads import HeadConfig
    from emotion2vec.probing.report import table, to_json
    from emotion2vec.probing.side_by_side import probe_models, write_report

    if out is not None:  # what would fail after the work fails before it
        import matplotlib  # noqa: F401

        with atomic_path(out / "results.txt") as path:
            path.write_text("in progress\n")
    records = find_recordings(data)
    found = probe_models(
        make_folds(records, folds, name=folds_name, num_folds=num_folds),
        model,
        layer=layer,
        seeds=range(seeds),
        head=HeadConfig(epochs=epochs),
        baselines=not no_baselines,
        progress=not quiet,
    )
    print((table if format == "table" else to_json)(found.results, found.folds, found.head))
    if out is not None:
        write_report(found, out)
        print(f"Report and pictures are in {out}.", file=sys.stderr)
    tell_left_out(found.errors)
    return SOME_FAILED if found.errors else 0
