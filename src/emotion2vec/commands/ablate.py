"""`emotion2vec ablate`."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, RowFormat, shows_bar

if TYPE_CHECKING:
    from emotion2vec.ablation.grid import Run


def ablate(
    config: Path,
    /,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    probe: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    vary: list[str] | None = None,
    cell: list[str] | None = None,
    seeds: int = 1,
    folds: Path | None = None,
    folds_name: str | None = None,
    num_folds: int = 5,
    epochs: int = 20,
    probe_seeds: int = 1,
    jobs: int = 1,
    plan: bool = False,
    format: RowFormat = "table",
    quiet: bool = False,
) -> int:
    """Pre-train a grid of settings, probe each, and compare.

    emotion2vec ablate configs/pretrain_study.toml --data corpus/ --probe labelled.jsonl
    --vary utterance_loss=chunk,none --seeds 3 --out runs/ablation

    Every run is OUT/CELL/seedN, a folder as `emotion2vec pretrain` makes it; what is there is taken
    as it is, and what was killed goes on. OUT gets results.txt, results.json, results.csv and
    ablation.png, anew whenever a run is done. A run that collapses or fails is a note in its row,
    and the exit code is then 3.

    Parameters
    ----------
    config
        TOML file of settings that all cells share.
    data
        What to pre-train on, as emotion2vec pretrain takes it.
    probe
        Manifests of labelled recordings, as emotion2vec probe takes them.
    out
        Folder of the grid.
    vary
        A setting and its values, such as alpha=0.1,1; given several times, all combinations. A
        setting is a flag of emotion2vec pretrain, such as utterance_loss, tokens, tau or depth, or
        a name of its --set.
    cell
        One more combination, such as "frame_weight=0 utterance_loss=chunk"; "" for CONFIG as it is.
    seeds
        How many pre-trainings a cell, with the seeds 1, 2, ...
    folds
        File of folds of the probe; without it, folds are made by speaker.
    folds_name
        Which folds in the file; its first if none.
    num_folds
        How many folds to make by speaker.
    epochs
        Of the probe's training; 20 are one cycle of its learning rate.
    probe_seeds
        How many seeds of the probe to average over.
    jobs
        Runs at once, each with its share of the processors.
    plan
        Say what would be run, and stop.
    format
        How the results are printed.
    quiet
        No progress.
    """
    import matplotlib  # noqa: F401  what would fail after the work fails before it

    from emotion2vec.ablation.grid import make_cells, make_runs
    from emotion2vec.ablation.report import look, summarize
    from emotion2vec.ablation.report import write as write_report
    from emotion2vec.ablation.scores import Probing, source_words
    from emotion2vec.ablation.work import carry_out
    from emotion2vec.manifest import find_recordings
    from emotion2vec.probing.folds import make_folds
    from emotion2vec.probing.heads import HeadConfig
    from emotion2vec.probing.tasks import label_set

    if min(seeds, jobs, probe_seeds) < 1:
        raise ValueError(
            f"seeds is {seeds}, probe-seeds {probe_seeds} and jobs {jobs}; give at least 1 of each."
        )
    if "/dev/stdin" in (*data, *probe):
        raise ValueError("every run reads the recordings anew; give a file of them instead of -.")
    runs = make_runs(config, make_cells(vary or [], cell or []), range(1, seeds + 1), out)
    if plan:
        for run in runs:
            print(f"{run.name}: {run.state}")
        return 0
    records = find_recordings(probe)
    splits = make_folds(records, folds, name=folds_name, num_folds=num_folds)
    label_set(splits)
    source = source_words(probe, folds, folds_name, num_folds)
    probing = Probing(splits, source, HeadConfig(epochs=epochs), probe_seeds)
    words = ["ablate", str(config), "--data", *data, "--out", str(out), "--seeds", str(seeds)]
    words += [word for text in vary or [] for word in ("--vary", text)]
    words += [word for text in cell or [] for word in ("--cell", text)]
    words += ["--probe", *source[1:], "--epochs", str(epochs), "--probe-seeds", str(probe_seeds)]
    command = shlex.join(["emotion2vec", *words])

    logging.getLogger("emotion2vec.ablation").setLevel(logging.WARNING if quiet else logging.INFO)
    # A scheduler's SIGTERM ends the commands that run, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    baselines = probing.baselines(
        runs[0].config.model, out / "baselines.json", progress=shows_bar(quiet=quiet)
    )

    def write(failures: Mapping[Run, str]) -> list[dict[str, Any]]:
        rows = summarize([look(run, probing, failures) for run in runs])
        write_report(rows, baselines, probing, out, command)
        return rows

    rows = write(carry_out(runs, data, probing, out, jobs=jobs, changed=write))
    suffix = "txt" if format == "table" else format
    print((out / f"results.{suffix}").read_text(encoding="utf-8"), end="")
    print(f"The results and ablation.png are in {out}.", file=sys.stderr)
    return SOME_FAILED if any(row["notes"] for row in rows) else 0
