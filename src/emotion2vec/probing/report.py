"""Probe results as a table that people read and as JSON that machines read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from emotion2vec.probing.folds import Fold, Folds, shared_speakers
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.results import ProbeResult, Run


def table(results: Sequence[ProbeResult], folds: Folds, head: HeadConfig | None = None) -> str:
    """The results side by side: WA, UA, WF1 pooled over folds and in every fold, in percent."""
    epochs = (head or HeadConfig()).epochs
    lines = [f"Protocol: {folds.protocol}; probes of {epochs} epochs, the best on validation."]
    shared = [shared_speakers(fold) for fold in folds.folds]
    if any(shared):
        lines.append(
            f"Not speaker-independent: {', '.join(map(str, shared))} speakers of the folds' test "
            "parts were trained on, too."
        )
    rows = [["", "WA", "UA", "WF1", "WA, 95 % over speakers", "WA / UA / WF1 of each fold"]]
    for result in results:
        low, high = result.interval()
        rows.append(
            [
                result.name,
                *(_score(result, name) for name in ("wa", "ua", "wf1")),
                f"{100 * low:.1f} to {100 * high:.1f}",
                "  ".join(_folds(result)),
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:5], widths[1:5], strict=True)]
        lines.append("  ".join([*cells, row[5]]).rstrip())
    seeds = max(len(result.seeds) for result in results)
    if seeds > 1:
        lines.append(f"Mean ± standard deviation over {seeds} seeds.")
    return "\n".join(lines)


def _score(result: ProbeResult, name: str) -> str:
    mean = 100 * result.mean()[name]
    if len(result.seeds) == 1:
        return f"{mean:.1f}"
    return f"{mean:.1f} ± {100 * result.deviation()[name]:.1f}"


def _folds(result: ProbeResult) -> list[str]:
    """Return WA/UA/WF1 of each fold, the mean over seeds."""
    cells = []
    for number in sorted({run.fold for run in result.runs}):
        scores = [result.scores([run]) for run in result.runs if run.fold == number]
        means = (100 * sum(s[n] for s in scores) / len(scores) for n in _NAMES)
        cells.append("/".join(f"{mean:.0f}" for mean in means))
    return cells


_NAMES = ("wa", "ua", "wf1")


def as_dict(
    results: Sequence[ProbeResult], folds: Folds, head: HeadConfig | None = None
) -> dict[str, Any]:
    """All scores, in [0, 1], predictions and how the probe was trained, ready for JSON."""
    return {
        "protocol": folds.protocol,
        "probe": asdict(head or HeadConfig()),
        "shared_speakers": [shared_speakers(fold) for fold in folds.folds],
        "results": [
            {
                "name": result.name,
                "pooled": result.mean(),
                "deviation_over_seeds": result.deviation(),
                "interval_95": {name: result.interval(name) for name in _NAMES},
                "runs": [
                    {
                        "fold": run.fold,
                        "seed": run.seed,
                        "chosen": run.note,
                        **result.scores([run]),
                        "predictions": dict(zip(run.keys, run.prediction, strict=True)),
                    }
                    for run in result.runs
                ],
            }
            for result in results
        ],
    }


def to_json(results: Sequence[ProbeResult], folds: Folds, head: HeadConfig | None = None) -> str:
    """`as_dict` as text."""
    return json.dumps(as_dict(results, folds, head), indent=2)


def from_dict(values: Mapping[str, Any], folds: Folds, head: HeadConfig) -> list[ProbeResult]:
    """The results that `as_dict` wrote, with truth and speakers of the folds.

    Recordings of the folds that have no prediction could not be read then, and are left out.

    Args:
        values: what `as_dict` gave
        folds: the splits that were probed
        head: how the probes were trained

    Raises:
        ValueError: if they are of other folds or another training
    """
    wanted = {"protocol": folds.protocol, "probe": asdict(head)}
    for name, value in wanted.items():
        if values.get(name) != value:
            raise ValueError(f"{name} is {values.get(name)}, not {value}; probe again.")
    try:
        return [
            ProbeResult(
                result["name"],
                tuple(_run(run, folds.folds[run["fold"] - 1]) for run in result["runs"]),
            )
            for result in values["results"]
        ]
    except (LookupError, TypeError) as error:
        raise ValueError(f"these are no results of a probe ({error!r}); probe again.") from error


def _run(values: Mapping[str, Any], fold: Fold) -> Run:
    answers = values["predictions"]
    test = [record for record in fold.test if record.key in answers]
    if len(test) < len(answers):
        raise ValueError(f"fold {values['fold']} has other recordings than were probed.")
    return Run(
        fold=values["fold"],
        seed=values["seed"],
        keys=tuple(record.key for record in test),
        speakers=tuple(record.speaker for record in test),
        truth=tuple(str(record.emotion) for record in test),
        prediction=tuple(answers[record.key] for record in test),
        note=values["chosen"],
    )
